"""The manifest of a conversion: what it holds and what it was made from. Written last: what it names is whole."""
import hashlib
import json
import os
from pathlib import Path

from .errors import DataError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
PICTURES = "pictures.json"      # beside the shards: the names of all pictures the annotations name


def load_manifest(output_dir) -> dict:
    """The manifest of the whole conversion in a folder; DataError where there is none."""
    output_dir = Path(output_dir)
    manifest, fault = read_manifest(output_dir)
    if manifest is None:
        raise DataError(f"{output_dir}: no whole conversion: {fault}")
    return manifest


def mindrecord_files(output_dir) -> list:
    """Paths of a conversion's MindRecord files, in the order of the records, for `mindspore.dataset.MindDataset`."""
    return [str(Path(output_dir) / name) for name in load_manifest(output_dir)["files"]]


def read_manifest(output_dir: Path) -> tuple:
    """(manifest, None), or (None, why there is no whole conversion)."""
    path = output_dir / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        sizes = dict(zip(manifest["files"], manifest["sizes"]))
        version = manifest["schema"]
    except FileNotFoundError:
        return None, f"no {path}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"{path} does not read: {error}"
    if version != SCHEMA_VERSION:
        return None, f"it has schema version {version}, this is {SCHEMA_VERSION}"
    for name, size in sizes.items():
        for file, expected in ((output_dir / name, size), (output_dir / f"{name}.db", None)):
            if not file.is_file():
                return None, f"{file} is missing"
            if expected is not None and file.stat().st_size != expected:
                return None, f"{file} has {file.stat().st_size} bytes, {expected} were written"
    return manifest, None


def write_manifest(output_dir: Path, manifest: dict) -> None:
    """Takes the place of the old one in one step."""
    partial = output_dir / f".{MANIFEST}.partial"
    # A line a key: to be read by people, and without the indentation that makes json ten times as slow.
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in manifest.items())
    partial.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    partial.replace(output_dir / MANIFEST)


def picture_sizes(image_dir: Path, names: list) -> tuple:
    """({name: bytes, None without such a file}, {count, bytes, digest} of the pictures' state); none is read."""
    sizes, digest, total = {}, hashlib.sha256(), 0
    for name in names:
        try:
            status = os.stat(os.path.join(image_dir, name))
            sizes[name], changed = status.st_size, status.st_mtime_ns
            total += status.st_size
        except (OSError, ValueError):       # ValueError: a name that no file can have
            sizes[name], changed = None, 0
        digest.update(f"{name}\0{sizes[name]}\0{changed}\n".encode(errors="surrogatepass"))
    return sizes, {"count": len(names), "bytes": total, "digest": digest.hexdigest()}
