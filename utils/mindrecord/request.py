"""A request for a conversion, and whether an existing conversion satisfies it: same options, annotations and images."""
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from .formats import find_format
from .image_files import check_rule
from .manifest import Manifest, image_file_sizes, read_manifest, same_options
from .readers import AnyPath, Classes, check_paths, check_source, source_digest
from .records import check_classes
from .splitting import Split


@dataclass(frozen=True)
class Request:
    """A requested conversion; its paths exist. `options` goes into the manifest."""

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
    """Return the request for the result of make_options; DataError if a path is missing."""
    image_dir, anno_path = check_paths(source, image_dir, anno_path, image_set)
    return Request(source, image_dir, anno_path, options["classes"], image_set or None, options["keep_empty"],
                   "masks" in options, options.get("exif_orientation", "auto"), options, split)


def make_options(source: str, classes: Classes, keep_empty: bool, masks: bool, exif_orientation: str,
                 split: Optional[Split]) -> dict[str, Any]:
    """Return the options for the manifest. Newer keys are left out at their defaults, so older manifests compare equal."""
    check_source(source, masks)
    options = {"source": source, "classes": check_classes(classes), "keep_empty": bool(keep_empty)}
    if check_rule(exif_orientation) != "auto":
        options["exif_orientation"] = exif_orientation
    if masks:
        options["masks"] = True
    return {**options, "split": asdict(split)} if split else options


def conversion_without_source(source: str, anno_path: AnyPath, output_dir: AnyPath, options: dict[str, Any],
                              image_set: Optional[str]) -> Optional[Manifest]:
    """Return the manifest of a complete conversion that matches the options and any annotations still present, or None."""
    manifest, _ = read_manifest(Path(output_dir))
    if manifest is None or not same_options(manifest, options):
        return None
    if anno_path and Path(anno_path).exists():
        same = source_digest(source, anno_path, image_set) == manifest["fingerprint"]["annotations"]
        return manifest if same else None
    return manifest


def stale_reason(manifest: Manifest, request: Request, folder: Path) -> Optional[str]:
    """Return why a complete conversion is out of date, or None if it is current."""
    if not same_options(manifest, request.options):
        return "it was made with other options"
    if "orientations" not in manifest:
        return "it was made before EXIF orientations were applied"
    if manifest.get("revision", 1) != find_format(request.source).revision:
        return "it was made by an earlier version, which read these annotations differently"
    fingerprint = manifest["fingerprint"]
    if source_digest(request.source, request.anno_path, request.image_set) != fingerprint["annotations"]:
        return "the annotations changed"
    try:
        names = json.loads((folder / manifest["pictures"]).read_bytes())
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("not a list of names")
    except (OSError, ValueError, RecursionError) as error:
        return f"{manifest['pictures']} cannot be read: {error}"
    if image_file_sizes(request.image_dir, names)[1] != fingerprint["pictures"]:
        return "images changed"
    return None
