"""What a conversion is asked for, and whether an existing one is still of that: the same options, annotations and images."""
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from .formats import find_format
from .manifest import Manifest, picture_sizes, read_manifest, same_options
from .pictures import check_rule
from .readers import AnyPath, Classes, check_paths, check_source, source_digest
from .records import check_classes
from .splitting import Split


@dataclass(frozen=True)
class Request:
    """A conversion that is asked for; its paths exist. options is what the manifest will hold."""

    source: str
    image_dir: Path
    anno_path: Path
    classes: Optional[list[str]]
    image_set: Optional[str]
    keep_empty: bool
    masks: bool
    exif_orientation: str
    options: dict[str, Any]
    split: Optional[Split]


def make_request(source: str, image_dir: AnyPath, anno_path: AnyPath, options: dict[str, Any], image_set: Optional[str],
                 split: Optional[Split]) -> Request:
    """Return the request for what make_options returned. DataError: a path is missing."""
    image_dir, anno_path = check_paths(source, image_dir, anno_path, image_set)
    return Request(source, image_dir, anno_path, options["classes"], image_set or None, options["keep_empty"],
                   "masks" in options, options.get("exif_orientation", "auto"), options, split)


def make_options(source: str, classes: Classes, keep_empty: bool, masks: bool, exif_orientation: str,
                 split: Optional[Split]) -> dict[str, Any]:
    """What a conversion is asked for, as the manifest holds it; without what older versions did not know, at its default."""
    check_source(source, masks)
    options = {"source": source, "classes": check_classes(classes), "keep_empty": bool(keep_empty)}
    if check_rule(exif_orientation) != "auto":
        options["exif_orientation"] = exif_orientation
    if masks:
        options["masks"] = True
    return {**options, "split": asdict(split)} if split else options


def conversion_without_source(source: str, anno_path: AnyPath, output_dir: AnyPath, options: dict[str, Any],
                              image_set: Optional[str]) -> Optional[Manifest]:
    """The manifest of a whole conversion that does not contradict what is there of its source, or None."""
    manifest, _ = read_manifest(Path(output_dir))
    if manifest is None or not same_options(manifest, options):
        return None
    if anno_path and Path(anno_path).exists():
        same = source_digest(source, anno_path, image_set) == manifest["fingerprint"]["annotations"]
        return manifest if same else None
    return manifest


def stale_reason(manifest: Manifest, request: Request, folder: Path) -> Optional[str]:
    """Why a whole conversion is not of this data, or None."""
    if not same_options(manifest, request.options):
        return "it was made with other options"
    if "orientations" not in manifest:
        return "it was made before images were turned by their EXIF orientation"
    if manifest.get("revision", 1) != find_format(request.source).revision:
        return "it was made by an earlier version, which read these annotations otherwise"
    fingerprint = manifest["fingerprint"]
    if source_digest(request.source, request.anno_path, request.image_set) != fingerprint["annotations"]:
        return "the annotations changed"
    try:
        names = json.loads((folder / manifest["pictures"]).read_bytes())
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("no list of names")
    except (OSError, ValueError, RecursionError) as error:
        return f"{manifest['pictures']} does not read: {error}"
    if picture_sizes(request.image_dir, names)[1] != fingerprint["pictures"]:
        return "pictures changed"
    return None
