"""Convert a data set to MindRecord. shard.py lists the columns.

Image files are stored byte for byte, except that the EXIF orientation is removed if the annotations refer to the image as stored.
Every reader can then apply the orientation and gets the image that the boxes belong to.

    OUTPUT_DIR/manifest.json                describes the current conversion and names its files
    OUTPUT_DIR/rows-XXXXXXXX/shard-N.mindrecord, shard-N.mindrecord.db, pictures.json

A conversion is written to OUTPUT_DIR/.partial-XXXXXXXX and renamed when complete. Replacing manifest.json makes it current; the
previous one is then deleted unless a process holds it (holding.py). If the conversion is interrupted, the manifest still names a
complete conversion or none, and the next conversion removes the leftovers.
"""
import json
import logging
import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from .errors import CLIPPED, LARGE_IMAGE, MISSING_IMAGE, NO_FILE, UNREADABLE_IMAGE, DataError, Problem, count_kinds, warn_of
from .fitting import fit
from .folder import PARTIAL, ROWS, locked_folder, remove_leftovers
from .formats import find_format
from .holding import Hold, hold
from .image_files import ImageError, inspect, read_image
from .image_header import without_orientation
from .manifest import IMAGE_NAMES, SCHEMA_VERSION, Manifest, image_file_sizes, read_manifest, write_manifest
from .masks import encode_masks, most_bytes
from .progress import Crew, Progress, Report, default_workers
from .readers import AnyPath, Classes, nothing_left, read_source, refuse_fatal
from .records import Annotations, ImageRecord, is_dropped
from .request import Request, conversion_without_source, make_options, make_request, stale_reason
from .shard import MAX_IMAGE, Layout, ShardWriter, plan_layout, row_size
from .splitting import Split

# Bytes of images per thread. With fewer, threads mostly wait for each other.
WORTH_A_THREAD = 32 << 20
log = logging.getLogger(__name__)


def convert(source: str, image_dir: AnyPath, anno_path: AnyPath, output_dir: AnyPath, classes: Classes = None,
            image_set: Optional[str] = None, workers: Optional[int] = None, keep_empty: bool = False,
            shards: Optional[int] = None, progress: Report = None, masks: bool = False, exif_orientation: str = "auto",
            split: Optional[Split] = None) -> Manifest:
    """Convert a data set, even if a conversion exists, and return the manifest. `read_annotations` describes the data arguments.

    Args:
        workers: number of threads, by default one per core and at most 8. Small data sets use fewer.
        keep_empty: keep images without objects. A crowd region does not count as an object.
        shards: number of files, by default one per worker.
        masks: keep the objects' masks and drop objects without one; the format must have masks.
        exif_orientation: one of EXIF_RULES in image_files.py.

    Unusable images and objects are dropped, counted and warned about.

    Raises:
        DataError: nothing is usable, or the output cannot be written.
    """
    options = make_options(source, classes, keep_empty, masks, exif_orientation, split)
    request = make_request(source, image_dir, anno_path, options, image_set, split)
    with locked_folder(output_dir) as folder:
        return _convert(request, folder, workers, shards, progress)


def ensure(source: str, image_dir: AnyPath, anno_path: AnyPath, output_dir: AnyPath, classes: Classes = None,
           image_set: Optional[str] = None, workers: Optional[int] = None, keep_empty: bool = False,
           shards: Optional[int] = None, progress: Report = None, masks: bool = False, exif_orientation: str = "auto",
           split: Optional[Split] = None, holds: Optional[list[Hold]] = None) -> Manifest:
    """Return the manifest of a complete, up-to-date conversion; convert if there is none. Arguments as for `convert`.

    If several processes call this at once, one converts and the others wait. If the source data is missing, an existing conversion
    is used as it is, so a machine may hold only the conversion. holds: list that receives the hold which keeps other processes from
    deleting the conversion.
    """
    options = make_options(source, classes, keep_empty, masks, exif_orientation, split)
    try:
        request = make_request(source, image_dir, anno_path, options, image_set, split)
    except DataError as error:
        manifest = conversion_without_source(source, anno_path, output_dir, options, image_set)
        if manifest is None:
            raise
        log.warning("%s; the conversion in %s is used as it is%s", error, output_dir, "" if "orientations" in manifest else
                    ": an older version made it, which did not apply EXIF orientations")
        return _held(Path(output_dir), manifest, holds)
    with locked_folder(output_dir) as folder:
        manifest, reason = read_manifest(folder)
        if manifest:
            reason = stale_reason(manifest, request, folder)
            if not reason:
                return _held(folder, manifest, holds)
        if (folder / "manifest.json").exists():
            log.warning("%s: converting again: %s", folder, reason)
        return _held(folder, _convert(request, folder, workers, shards, progress), holds)


def _held(folder: Path, manifest: Manifest, holds: Optional[list[Hold]]) -> Manifest:
    """Return the manifest, and add a hold on its rows to `holds`."""
    found = hold((folder / manifest["files"][0]).parent) if holds is not None else None
    if holds is not None and found is not None:
        holds.append(found)
    return manifest


@dataclass
class _Part:
    """The records that one thread converts, and the results."""

    records: list[ImageRecord]
    sizes: list[int]
    path: Path
    fields: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    objects: int = 0
    orientations: int = 0
    with_objects: int = 0
    writer: Any = None      # a ShardWriter once writing has begun


def _convert(request: Request, folder: Path, workers: Optional[int], shards: Optional[int], report: Report) -> Manifest:
    found = read_source(request.source, request.image_dir, request.anno_path, request.classes, request.image_set, request.split)
    refuse_fatal(found.problems)
    sizes, fingerprint = image_file_sizes(request.image_dir, sorted({record.file_name for record in found.records}))
    problems, records = list(found.problems), []
    for record in found.records:
        fault = size_fault(record, sizes[record.file_name], request.image_dir)
        if fault:
            problems.append(fault)
        elif request.keep_empty or _has_objects(record):
            records.append(record)
    if not records:
        raise _nothing(request, found, problems)
    workers = max(1, int(workers or default_workers()))
    token = secrets.token_hex(4)
    partial = folder / f"{PARTIAL}{token}"
    partial.mkdir()
    parts: list[_Part] = []
    held: Optional[Hold] = None
    try:
        (partial / IMAGE_NAMES).write_text(json.dumps(sorted(sizes)), encoding="utf-8")
        held = hold(partial)
        lengths = [sizes[record.file_name] or 0 for record in records]      # missing files were dropped above
        total = sum(lengths)
        _refuse_full_disk(folder, total)
        rows = [row_size(length, len(record.labels), most_bytes(record.segmentations or ()) if request.masks else 0)
                for length, record in zip(lengths, records)]
        parts = _divide(records, rows, min(int(shards or workers), len(records)), partial)
        with Crew(min(workers, 1 + total // WORTH_A_THREAD)) as crew:
            _write(crew, parts, request, report)
        problems += [problem for part in parts for problem in part.problems]
        parts = [part for part in parts if part.fields]
        if not parts:
            raise _nothing(request, found, problems)
        manifest = _manifest(request, found, parts, problems, fingerprint, f"{ROWS}{token}")
        partial.rename(folder / f"{ROWS}{token}")
        write_manifest(folder, manifest)
    except BaseException:
        for part in parts:
            if part.writer:
                part.writer.close()
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        if held:
            held.close()
    remove_leftovers(folder, keep=f"{ROWS}{token}")
    warn_of(problems, log)
    return manifest


def _write(crew: Crew, parts: list[_Part], request: Request, report: Report) -> None:
    layout = plan_layout([part.sizes for part in parts])
    progress = Progress(sum(len(part.records) for part in parts), "MindRecord", report)
    try:
        crew.run(lambda part, tick: _write_rows(part, layout, request, tick), parts, progress)
        start = 0
        for part in parts:                          # dropped images are known only now, so rows are numbered here
            for index, fields in enumerate(part.fields, start):
                fields["index"] = index
            start += len(part.fields)
        crew.run(lambda part, tick: _finish(part), parts)
        progress.update(progress.total)
    finally:
        progress.close()


def size_fault(record: ImageRecord, size: Optional[int], image_dir: Path) -> Optional[Problem]:
    """Return the problem of an image that is missing or too large to store, else None."""
    if size is None:
        if os.path.exists(image_dir / record.file_name):
            return Problem(str(image_dir / record.file_name), "", NO_FILE, UNREADABLE_IMAGE)
        return Problem(record.origin, record.file_name, f"no such image in {image_dir}", MISSING_IMAGE)
    if size > MAX_IMAGE:
        what = f"the file has {size >> 20} MB, the limit is {MAX_IMAGE >> 20} MB"
        return Problem(str(image_dir / record.file_name), "", what, LARGE_IMAGE)
    return None


def _has_objects(record: ImageRecord) -> bool:
    return 0 in record.crowds


def _nothing(request: Request, found: Annotations, problems: list[Problem]) -> DataError:
    if found.records and not problems and not any(map(_has_objects, found.records)):
        return DataError(f"{request.anno_path}: none of its {len(found.records)} images has an object; "
                         "set keep_empty to convert them")
    return nothing_left(request.anno_path, problems)


def _refuse_full_disk(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DataError(f"{folder}: {size / 1e6:.0f} MB are required, but only {free / 1e6:.0f} MB are free")


def _divide(records: list[ImageRecord], rows: list[int], count: int, folder: Path) -> list[_Part]:
    """Split the records into `count` consecutive parts of about the same number of bytes; concatenated, they keep the order."""
    total, done, start = sum(rows), 0, 0
    parts: list[_Part] = []
    for end, size in enumerate(rows, 1):
        done += size
        left = count - len(parts) - 1           # parts that follow; each needs at least one record
        if end == len(rows) or (left and (done * count >= total * (len(parts) + 1) or len(rows) - end == left)):
            name = f"shard-{len(parts)}.mindrecord"
            parts.append(_Part(records[start:end], rows[start:end], folder / name))
            start = end
    return parts


def _write_rows(part: _Part, layout: Layout, request: Request, tick: Callable[[], None]) -> None:
    part.writer = ShardWriter(part.path, layout, request.masks)
    for record in part.records:
        tick()
        try:
            _write_row(part, record, request)
        except ImageError as error:
            part.problems.append(Problem(str(request.image_dir / record.file_name), "", str(error), error.kind))


def _write_row(part: _Part, record: ImageRecord, request: Request) -> None:
    data = read_image(os.path.join(request.image_dir, record.file_name))
    info = inspect(data)
    stay, boxes, masks, problems, frame = fit(record, info, request.masks, request.exif_orientation)
    part.problems += problems
    labels, crowds = record.labels[stay], record.crowds[stay]
    count = len(boxes)
    if not request.keep_empty and 0 not in crowds:
        return
    if not count:       # MindRecord cannot read back empty arrays: write one row of zeros with count 0
        boxes, labels, crowds = np.zeros((1, 4)), np.zeros(1, np.int32), np.zeros(1, np.int32)
    if frame.stored:
        data = without_orientation(data)
    part.writer.add(data, boxes, labels, crowds, encode_masks(masks) if request.masks else b"")
    part.objects += count
    part.with_objects += count > 0
    part.orientations += info.orientation > 1
    part.fields.append({"image_id": int(record.image_id), "file_name": record.file_name, "height": frame.info.height,
                        "width": frame.info.width, "count": count})


def _finish(part: _Part) -> None:
    if part.fields:
        part.writer.finish(part.fields)
    else:
        part.writer.close()
        part.path.unlink()


def _manifest(request: Request, found: Annotations, parts: list[_Part], problems: list[Problem], images: dict[str, Any],
              rows: str) -> Manifest:
    counts = count_kinds(problem for problem in problems if is_dropped(problem))
    kept = count_kinds(problem for problem in problems if not is_dropped(problem))
    return {
        "schema": SCHEMA_VERSION, "source": request.source, "revision": find_format(request.source).revision,
        "files": [f"{rows}/{part.path.name}" for part in parts],
        "sizes": [part.path.stat().st_size for part in parts], "count": sum(len(part.fields) for part in parts),
        "images_with_objects": sum(part.with_objects for part in parts), "objects": sum(part.objects for part in parts),
        "orientations": sum(part.orientations for part in parts),
        "dropped": counts, "clipped": kept.pop(CLIPPED, 0), "told": kept, "categories": found.categories,
        "options": request.options, "pictures": f"{rows}/{IMAGE_NAMES}",
        "fingerprint": {"annotations": found.digest, "pictures": images},
    }
