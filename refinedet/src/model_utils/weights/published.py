# Same as faster_rcnn/src/model_utils/weights/published.py
"""The table of published weights that the models accept by name: published.yaml."""
import argparse
import functools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from ...model import NAME

TABLE = Path(__file__).with_name("published.yaml")


class Published(NamedTuple):
    """A published file. size: MiB; top1, box_ap, mask_ap: percent; None if the source does not state it.

    digest: "sha256" or "md5"; digits: its first digits; both empty if the source publishes none.
    models: model -> configuration keys that the weights were trained with.
    """

    name: str
    source: str
    url: str
    licence: str
    page: str
    digest: str
    digits: str
    size: float | None
    top1: float | None
    box_ap: float | None
    mask_ap: float | None
    models: dict[str, dict[str, Any]]

    @property
    def file(self) -> str:
        """Return the file name."""
        return self.url.rpartition("/")[2]

    @property
    def is_detector(self) -> bool:
        """Return whether the weights are a whole detector instead of a backbone."""
        return self.box_ap is not None

    @property
    def accuracy(self) -> str:
        """Return the source's figures as text."""
        figures = (("box AP", self.box_ap), ("mask AP", self.mask_ap), ("top-1", self.top1))
        return ", ".join(f"{what} {value:g}" for what, value in figures if value is not None)

    @property
    def checksum(self) -> str:
        """Return the checksum as text; empty if there is none."""
        return f"{self.digest.upper().replace('SHA256', 'SHA-256')} {self.digits}..." if self.digits else ""


@functools.cache
def read_table() -> dict[str, Published]:
    """Return name -> Published for all models."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {name: _entry(name, row, table["sources"][row["source"]]) for name, row in table["weights"].items()}


def _entry(name: str, row: dict[str, Any], source: dict[str, str]) -> Published:
    stem = row["url"].rpartition("/")[2].rpartition(".")[0]
    digits = stem.rpartition("_" if source.get("digest") == "md5" else "-")[2]
    # detectron2 puts the digits into the names of its detectors, but not into ImageNet's R-50.pkl and R-101.pkl.
    digest = source.get("digest", "") if len(digits) == {"md5": 6, "sha256": 8}.get(source.get("digest", "")) else ""
    figures = {key: row.get(key) for key in ("size", "top1", "box_ap", "mask_ap")}
    return Published(name, row["source"], row["url"], source["licence"], source["page"], digest, digits if digest else "",
                     models=row["models"], **figures)


def own_weights() -> dict[str, Published]:
    """Return the weights that this model can convert."""
    return {name: entry for name, entry in read_table().items() if NAME in entry.models}


def listing() -> str:
    """Return the text that --list prints."""
    lines = [f"Published weights for {NAME}: pass a name to --pre_trained, or a detector's name to --checkpoint_path."]
    for name, entry in own_weights().items():
        size = f"{entry.size:.1f} MiB" if entry.size else "size not stated"
        keys = as_options(entry.models[NAME])
        facts = [entry.source, entry.accuracy, size, entry.checksum or "no checksum published", entry.licence]
        lines += ["", name, *textwrap.wrap("; ".join(filter(None, facts)), 118, initial_indent="  ", subsequent_indent="  "),
                  f"  {entry.url}", f"  trained with {keys}"]
    pages = {entry.source: entry.page for entry in own_weights().values()}
    return "\n".join([*lines, "", *(f"{source}: {page}" for source, page in pages.items())])


def as_options(keys: dict[str, Any]) -> str:
    """Return configuration keys as command-line options."""
    return " ".join(f"--{key}={value}".replace(" ", "") for key, value in keys.items())


class ListAction(argparse.Action):
    """A command-line option that prints the table and exits."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any):
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(listing())
        parser.exit()
