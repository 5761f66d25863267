"""The manifest of a conversion: what it holds and what it was made from. Written last: what it names is whole."""
import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, Optional, TypedDict, Union

from ..files import write_text
from .errors import NO_FILE, DataError
from .records import BACKGROUND

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
PICTURES = "pictures.json"      # beside the shards: the names of all pictures the annotations name


class Manifest(TypedDict):
    """What manifest.json holds."""

    schema: int
    source: str                         # name of the format
    revision: NotRequired[int]          # of its reader; 1 where it is missing
    files: list[str]                    # relative to the folder, in the order of the records
    sizes: list[int]                    # bytes of each file
    count: int                          # images
    images_with_objects: int
    objects: int
    orientations: int                   # images with an EXIF orientation; older conversions have no such key
    dropped: dict[str, int]             # kind of problem -> images or objects that it cost
    clipped: int                        # boxes
    told: dict[str, int]                # kind of problem -> how often; nothing was dropped
    categories: list[dict[str, Any]]    # {"id", "name", "label"} of each class
    options: dict[str, Any]             # what was asked for
    pictures: str                       # the file PICTURES
    fingerprint: dict[str, Any]         # "annotations": digest; "pictures": state of PictureSizes


class Reading(NamedTuple):
    """The manifest of a whole conversion, or why there is none."""

    manifest: Optional[Manifest]
    fault: Optional[str]


class PictureSizes(NamedTuple):
    """The sizes of image files, none of which is read."""

    sizes: dict[str, Optional[int]]     # name -> bytes, None without such a regular file
    state: dict[str, Any]               # count, bytes, digest: what changes with the files


def load_manifest(output_dir: Union[str, os.PathLike[str]]) -> Manifest:
    """The manifest of the whole conversion in a folder; DataError where there is none."""
    output_dir = Path(output_dir)
    manifest, fault = read_manifest(output_dir)
    if manifest is None:
        raise DataError(f"{output_dir}: no whole conversion: {fault}")
    return manifest


def mindrecord_files(output_dir: Union[str, os.PathLike[str]]) -> list[str]:
    """Paths of a conversion's MindRecord files, in the order of the records, for `mindspore.dataset.MindDataset`."""
    return [str(Path(output_dir) / name) for name in load_manifest(output_dir)["files"]]


def read_manifest(output_dir: Path) -> Reading:
    """Read the manifest of a folder, and check that its files are there."""
    path = output_dir / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        sizes = dict(zip(manifest["files"], manifest["sizes"]))
        version = manifest["schema"]
    except FileNotFoundError:
        return Reading(None, f"no {path}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return Reading(None, f"{path} does not read: {error}")
    if version != SCHEMA_VERSION:
        return Reading(None, f"it has schema version {version}, this is {SCHEMA_VERSION}")
    for name, size in sizes.items():
        for file, expected in ((output_dir / name, size), (output_dir / f"{name}.db", None)):
            if not file.is_file():
                return Reading(None, f"{file} is missing")
            if expected is not None and file.stat().st_size != expected:
                return Reading(None, f"{file} has {file.stat().st_size} bytes, {expected} were written")
    return Reading(manifest, None)


def same_options(manifest: Manifest, options: dict[str, Any]) -> bool:
    """Return whether a conversion is what was asked for; all classes of the data are the same as just these classes by name."""
    made = manifest["options"]
    if made.get("classes") is None and options["classes"] is not None:
        names = [item["name"] for item in sorted(manifest["categories"], key=lambda item: item["label"])]
        made = {**made, "classes": [BACKGROUND, *names]}
    return made == options


def write_manifest(output_dir: Path, manifest: Manifest) -> None:
    """Takes the place of the old one in one step."""
    # A line a key: to be read by people, and without the indentation that makes json ten times as slow.
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in manifest.items())
    write_text(output_dir / MANIFEST, f"{{\n{lines}\n}}\n")


def picture_sizes(image_dir: Path, names: list[str]) -> PictureSizes:
    """Look up the sizes of image files."""
    sizes: dict[str, Optional[int]] = {}
    digest, total = hashlib.sha256(), 0
    for name in names:
        try:
            status = os.stat(os.path.join(image_dir, name))
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, NO_FILE)
            sizes[name], changed = status.st_size, status.st_mtime_ns
            total += status.st_size
        except (OSError, ValueError):       # ValueError: a name that no file can have
            sizes[name], changed = None, 0
        digest.update(f"{name}\0{sizes[name]}\0{changed}\n".encode(errors="surrogatepass"))
    return PictureSizes(sizes, {"count": len(names), "bytes": total, "digest": digest.hexdigest()})
