# Same as faster_rcnn/src/model_utils/layers/backbone_table.py
"""Table of a model's backbones: a YAML file whose entries name the builder, the default keys and the weights.

MindSpore is not imported before a backbone is built, because the configuration and the launch scripts read the table, too:

    python backbone_table.py TABLE NAME     prints the arguments for the entry points, see Backbone.flags
"""
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:       # the launch scripts run this file outside its package
    from ..configuration.values import Config

FIELDS = ("builder", "keys", "reads", "weights", "config")
DEFAULT_CONFIG = "default_config.yaml"


@dataclass(frozen=True)
class Backbone:
    """An entry of the table; the comment at the top of the YAML file explains the fields."""

    name: str
    package: str                    # `builder` and `weights` are relative to it
    builder: str
    keys: dict[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    weights: str = ""
    config: str = DEFAULT_CONFIG
    own_config: bool = True         # no earlier entry has the same `config`

    def build(self, config: "Config", fast: bool = False) -> Any:
        """Return the cell that the configuration describes. fast: use the CPU's fast convolutions."""
        return self._function(f".{self.builder}")(config, fast)

    def convert(self, arrays: Mapping[str, Any], place: str) -> Any:
        """Return the Conversion of an ImageNet checkpoint.

        Args:
            arrays: {name: array} of the checkpoint.
            place: its path, for messages.

        Raises:
            ValueError: if the entry has no field `weights`.
        """
        if not self.weights:
            raise ValueError(f"{self.name}: its entry has no field weights, which names the function that converts them")
        return self._function(self.weights)(arrays, self.name, place)

    def _function(self, path: str) -> Callable[..., Any]:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module, self.package), name)

    @property
    def flags(self) -> list[str]:
        """Return the launch scripts' arguments: the YAML, and the name unless the YAML already selects the backbone."""
        return [self.config, *([] if self.own_config else [f"--backbone={self.name}"])]


def read_backbones(path: Path, package: str) -> dict[str, Backbone]:
    """Return {name: Backbone} of a table. Raises ValueError for an entry with an unknown or missing field."""
    backbones: dict[str, Backbone] = {}
    for name, entry in yaml.safe_load(Path(path).read_text(encoding="utf-8")).items():
        unknown = [key for key in entry if key not in FIELDS]
        if unknown or "builder" not in entry:
            raise ValueError(f"{path}: {name}: " + (f"unknown field {unknown[0]}" if unknown else "builder is missing"))
        own = all(other.config != entry.get("config", DEFAULT_CONFIG) for other in backbones.values())
        backbones[name] = Backbone(name, package, **{**entry, "reads": tuple(entry.get("reads", ()))}, own_config=own)
    return backbones


def check_reads(config: "Config", backbones: dict[str, Backbone], defaults: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, fault) for keys that only other kinds of backbones read and that differ from `defaults`."""
    chosen = backbones[config.backbone]
    for key in dict.fromkeys(key for other in backbones.values() for key in other.reads if key not in chosen.reads):
        value = defaults[key]
        if config[key] != (tuple(value) if isinstance(value, list) else value):
            yield key, f"{chosen.name} does not read it: it has {', '.join(chosen.reads) or 'no keys of its own'}"


def main(argv: list[str]) -> int:
    """Print the flags of a backbone, one per line; return status 2, with one line on stderr, if the table lacks the name."""
    table, name = argv
    backbones = read_backbones(Path(table), "")
    if name not in backbones:
        print(f"expected one of {', '.join(backbones)}, got {name!r}", file=sys.stderr)
        return 2
    print("\n".join(backbones[name].flags))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
