"""Detect the format of the data in a folder, and recognise exports of annotation tools that no reader supports."""
import json
import shlex
from pathlib import Path
from typing import NamedTuple, Optional

from .errors import DataError
from .format import Format, Place, read_bytes, read_head
from .formats import all_formats

HEAD = 65536        # bytes read of a file


class Found(NamedTuple):
    """A data set in a folder."""

    entry: Format
    place: Place

    def flags(self) -> str:
        """Return the flags, without --source, that make check.py and convert.py read this data set."""
        values = {name: value for name, value in self.place._asdict().items() if value}
        return " ".join(f"--{name}={shlex.quote(str(value))}" for name, value in values.items())


def find_data(folder: Path) -> list[Found]:
    """Return the data sets in a folder, all of the first format that matches; DataError if there is none."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}")
    for entry in all_formats().values():
        places = entry.find(folder) if entry.find else []
        if places:
            return [Found(entry, place) for place in places]
    known = ", ".join(entry.title for entry in all_formats().values())
    raise DataError(f"{folder}: {_foreign(folder) or 'no annotations found'} (known formats: {known}; or give --source and "
                    "--anno_path)")


def _foreign(folder: Path) -> Optional[str]:
    """Describe an unsupported export of an annotation tool, and the format to export instead; None if there is none."""
    for path in sorted(filter(Path.is_file, folder.glob("*.xml"))):
        if b"<annotations>" in read_head(path, HEAD):
            return f"{path.name} is \"CVAT for images\"; export it from CVAT as COCO 1.0, with masks, or as Ultralytics YOLO"
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(read_bytes(path))
        except (ValueError, RecursionError):
            continue
        values = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
        if any(isinstance(item, dict) and "regions" in item for item in values.values()):
            return f"{path.name} is a project of the VGG Image Annotator; export its annotations in COCO format"
        if isinstance(content, list) and any(isinstance(item, dict) and "annotations" in item for item in content):
            return f"{path.name} is Label Studio JSON; export it as COCO or YOLO"
    return None
