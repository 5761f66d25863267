"""The manifest of a conversion: its content and the data it was made from. It is written last, so its files are complete."""
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
IMAGE_NAMES = "pictures.json"      # beside the shards: the names of all annotated images


class Manifest(TypedDict):
    """The content of manifest.json."""

    schema: int
    source: str                         # name of the format
    revision: NotRequired[int]          # of the format's reader; 1 if missing
    files: list[str]                    # relative to the folder, in the order of the records
    sizes: list[int]                    # bytes of each file
    count: int                          # images
    images_with_objects: int
    objects: int
    orientations: int                   # images with an EXIF orientation; older manifests lack this key
    dropped: dict[str, int]             # kind of problem -> number of dropped images or objects
    clipped: int                        # boxes
    told: dict[str, int]                # kind of problem that dropped nothing -> count
    categories: list[dict[str, Any]]    # {"id", "name", "label"} of each class
    options: dict[str, Any]             # as requested, see request.make_options
    pictures: str                       # the file IMAGE_NAMES
    fingerprint: dict[str, Any]         # "annotations": digest; "pictures": state of ImageFileSizes


class Reading(NamedTuple):
    """The manifest of a complete conversion, or the reason why there is none."""

    manifest: Optional[Manifest]
    fault: Optional[str]


class ImageFileSizes(NamedTuple):
    """The sizes of image files; the files are not read."""

    sizes: dict[str, Optional[int]]     # name -> bytes; None if there is no such regular file
    state: dict[str, Any]               # count, bytes, digest; changes when a file does


def load_manifest(output_dir: Union[str, os.PathLike[str]]) -> Manifest:
    """Return the manifest of the complete conversion in a folder; DataError if there is none."""
    output_dir = Path(output_dir)
    manifest, fault = read_manifest(output_dir)
    if manifest is None:
        raise DataError(f"{output_dir}: no complete conversion: {fault}")
    return manifest


def mindrecord_files(output_dir: Union[str, os.PathLike[str]]) -> list[str]:
    """Return the paths of a conversion's MindRecord files in record order, for `mindspore.dataset.MindDataset`."""
    return [str(Path(output_dir) / name) for name in load_manifest(output_dir)["files"]]


def read_manifest(output_dir: Path) -> Reading:
    """Read the manifest in a folder and check that all its files exist."""
    path = output_dir / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        sizes = dict(zip(manifest["files"], manifest["sizes"]))
        version = manifest["schema"]
    except FileNotFoundError:
        return Reading(None, f"no {path}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return Reading(None, f"{path} cannot be read: {error}")
    if version != SCHEMA_VERSION:
        return Reading(None, f"its schema version is {version}, expected {SCHEMA_VERSION}")
    for name, size in sizes.items():
        for file, expected in ((output_dir / name, size), (output_dir / f"{name}.db", None)):
            if not file.is_file():
                return Reading(None, f"{file} is missing")
            if expected is not None and file.stat().st_size != expected:
                return Reading(None, f"{file} has {file.stat().st_size} bytes, expected {expected}")
    return Reading(manifest, None)


def same_options(manifest: Manifest, options: dict[str, Any]) -> bool:
    """Return whether a conversion matches the options. All classes match a request that lists exactly these classes."""
    made = manifest["options"]
    if made.get("classes") is None and options["classes"] is not None:
        names = [item["name"] for item in sorted(manifest["categories"], key=lambda item: item["label"])]
        made = {**made, "classes": [BACKGROUND, *names]}
    return made == options


def write_manifest(output_dir: Path, manifest: Manifest) -> None:
    """Write manifest.json, replacing the previous one atomically."""
    # One key per line is readable, and ten times as fast as json's indentation.
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in manifest.items())
    write_text(output_dir / MANIFEST, f"{{\n{lines}\n}}\n")


def image_file_sizes(image_dir: Path, names: list[str]) -> ImageFileSizes:
    """Return the sizes of image files and a digest of their names, sizes and modification times."""
    sizes: dict[str, Optional[int]] = {}
    digest, total = hashlib.sha256(), 0
    for name in names:
        try:
            status = os.stat(os.path.join(image_dir, name))
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, NO_FILE)
            sizes[name], changed = status.st_size, status.st_mtime_ns
            total += status.st_size
        except (OSError, ValueError):       # ValueError: not a valid file name
            sizes[name], changed = None, 0
        digest.update(f"{name}\0{sizes[name]}\0{changed}\n".encode(errors="surrogatepass"))
    return ImageFileSizes(sizes, {"count": len(names), "bytes": total, "digest": digest.hexdigest()})
