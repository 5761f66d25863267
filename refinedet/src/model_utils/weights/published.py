# Same as faster_rcnn/src/model_utils/weights/published.py
"""The table of published weights that the models take by name: published.yaml."""
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
    """A published file. size: MiB; top1, box_ap, mask_ap: percent; None where the source does not say it.

    digest: sha256 or md5, the first digits of which are `digits`; both empty where the source publishes none.
    models: model -> keys of its configuration that the weights were trained with.
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
        """The name of the file."""
        return self.url.rpartition("/")[2]

    @property
    def is_detector(self) -> bool:
        """Whether it is a whole detector, not a backbone."""
        return self.box_ap is not None

    @property
    def accuracy(self) -> str:
        """The figures of the source in words."""
        figures = (("box AP", self.box_ap), ("mask AP", self.mask_ap), ("top-1", self.top1))
        return ", ".join(f"{what} {value:g}" for what, value in figures if value is not None)

    @property
    def checksum(self) -> str:
        """What the file is checked with, in words."""
        return f"{self.digest.upper().replace('SHA256', 'SHA-256')} {self.digits}..." if self.digits else ""


@functools.cache
def read_table() -> dict[str, Published]:
    """Return name -> Published, of all models."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {name: _entry(name, row, table["sources"][row["source"]]) for name, row in table["weights"].items()}


def _entry(name: str, row: dict[str, Any], source: dict[str, str]) -> Published:
    stem = row["url"].rpartition("/")[2].rpartition(".")[0]
    digits = stem.rpartition("_" if source.get("digest") == "md5" else "-")[2]
    # detectron2 puts the digits of its detectors into their names, not those of ImageNet's R-50.pkl and R-101.pkl.
    digest = source.get("digest", "") if len(digits) == {"md5": 6, "sha256": 8}.get(source.get("digest", "")) else ""
    figures = {key: row.get(key) for key in ("size", "top1", "box_ap", "mask_ap")}
    return Published(name, row["source"], row["url"], source["licence"], source["page"], digest, digits if digest else "",
                     models=row["models"], **figures)


def own_weights() -> dict[str, Published]:
    """Return those that this model converts."""
    return {name: entry for name, entry in read_table().items() if NAME in entry.models}


def listing() -> str:
    """Return what --list prints."""
    lines = [f"Published weights for {NAME}: give a name to --pre_trained, that of a detector also to --checkpoint_path."]
    for name, entry in own_weights().items():
        size = f"{entry.size:.1f} MiB" if entry.size else "size not stated"
        keys = as_options(entry.models[NAME])
        facts = [entry.source, entry.accuracy, size, entry.checksum or "no checksum published", entry.licence]
        lines += ["", name, *textwrap.wrap("; ".join(filter(None, facts)), 118, initial_indent="  ", subsequent_indent="  "),
                  f"  {entry.url}", f"  trained with {keys}"]
    pages = {entry.source: entry.page for entry in own_weights().values()}
    return "\n".join([*lines, "", *(f"{source}: {page}" for source, page in pages.items())])


def as_options(keys: dict[str, Any]) -> str:
    """Return keys of a configuration as they are written on a command line."""
    return " ".join(f"--{key}={value}".replace(" ", "") for key, value in keys.items())


class ListAction(argparse.Action):
    """An option that prints the table and ends the program."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any):
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(listing())
        parser.exit()
