"""Converts a data set to MindRecord: picture bytes, boxes, labels, ids, sizes; shard.py has the columns.

The bytes are those of the file, without the EXIF orientation where the annotations do not follow it: so all that decode
them turn the image as its boxes have it.

    OUTPUT_DIR/manifest.json                the conversion in force; it names its files
    OUTPUT_DIR/rows-XXXXXXXX/shard-N.mindrecord, shard-N.mindrecord.db, pictures.json

A conversion is written to OUTPUT_DIR/.partial-XXXXXXXX, renamed when whole, and comes into force when manifest.json is
replaced; then the one before is deleted, unless a process holds it (holding.py). So whatever ends the work, the manifest
names a whole conversion or none; leftovers go with the next one.
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

from .errors import CLIPPED, LARGE_PICTURE, MISSING_PICTURE, NO_FILE, UNREADABLE_PICTURE, DataError, Problem, count_kinds, warn_of
from .fitting import fit
from .folder import PARTIAL, ROWS, locked_folder, remove_leftovers
from .formats import find_format
from .holding import Hold, hold
from .image_header import without_orientation
from .manifest import PICTURES, SCHEMA_VERSION, Manifest, picture_sizes, read_manifest, write_manifest
from .masks import encode_masks, most_bytes
from .pictures import PictureError, inspect, read_picture
from .progress import Crew, Progress, Report, default_workers
from .readers import AnyPath, Classes, nothing_left, read_source, refuse_fatal
from .records import Annotations, ImageRecord, is_dropped
from .request import Request, conversion_without_source, make_options, make_request, stale_reason
from .shard import MAX_PICTURE, Layout, ShardWriter, plan_layout, row_size
from .splitting import Split

# Bytes of pictures that keep a thread busy for longer than it costs: with less, threads only wait for each other.
WORTH_A_THREAD = 32 << 20
log = logging.getLogger(__name__)


def convert(source: str, image_dir: AnyPath, anno_path: AnyPath, output_dir: AnyPath, classes: Classes = None,
            image_set: Optional[str] = None, workers: Optional[int] = None, keep_empty: bool = False,
            shards: Optional[int] = None, progress: Report = None, masks: bool = False, exif_orientation: str = "auto",
            split: Optional[Split] = None) -> Manifest:
    """Convert, whatever is there already, and return the manifest. The data set is described as for `read_annotations`.

    workers: threads, by default one for each core, 8 at most; few images take fewer. shards: files, by default one for each
    worker. keep_empty: take images without objects too (crowds are none). masks (if the format has them): keep the masks of
    objects, and drop objects without one. exif_orientation: one of EXIF_RULES in pictures.py. DataError: there is nothing to
    convert, or no place to write to. Single images and objects that cannot be used are dropped, counted and warned about.
    """
    options = make_options(source, classes, keep_empty, masks, exif_orientation, split)
    request = make_request(source, image_dir, anno_path, options, image_set, split)
    with locked_folder(output_dir) as folder:
        return _convert(request, folder, workers, shards, progress)


def ensure(source: str, image_dir: AnyPath, anno_path: AnyPath, output_dir: AnyPath, classes: Classes = None,
           image_set: Optional[str] = None, workers: Optional[int] = None, keep_empty: bool = False,
           shards: Optional[int] = None, progress: Report = None, masks: bool = False, exif_orientation: str = "auto",
           split: Optional[Split] = None, holds: Optional[list[Hold]] = None) -> Manifest:
    """The manifest of a whole conversion of just this data; an old or partial one is made again. Arguments as `convert`.

    Of several processes that call it at once, one converts and the others wait. Where the source is not there (any
    more), the conversion is taken as it is: on a machine to which only it was brought. holds: a list to which the hold is added
    that keeps other processes from deleting the conversion.
    """
    options = make_options(source, classes, keep_empty, masks, exif_orientation, split)
    try:
        request = make_request(source, image_dir, anno_path, options, image_set, split)
    except DataError as error:
        manifest = conversion_without_source(source, anno_path, output_dir, options, image_set)
        if manifest is None:
            raise
        log.warning("%s; the conversion in %s is used as it is%s", error, output_dir, "" if "orientations" in manifest else
                    ": it is of an older version, which did not turn images by their EXIF orientation")
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
    """The manifest, and the hold on its rows added to `holds`."""
    found = hold((folder / manifest["files"][0]).parent) if holds is not None else None
    if holds is not None and found is not None:
        holds.append(found)
    return manifest


@dataclass
class _Part:
    """What one thread converts, and then what came of it."""

    records: list[ImageRecord]
    sizes: list[int]
    path: Path
    fields: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    objects: int = 0
    orientations: int = 0
    with_objects: int = 0
    writer: Any = None      # a ShardWriter once the work has begun


def _convert(request: Request, folder: Path, workers: Optional[int], shards: Optional[int], report: Report) -> Manifest:
    found = read_source(request.source, request.image_dir, request.anno_path, request.classes, request.image_set, request.split)
    refuse_fatal(found.problems)
    sizes, fingerprint = picture_sizes(request.image_dir, sorted({record.file_name for record in found.records}))
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
        (partial / PICTURES).write_text(json.dumps(sorted(sizes)), encoding="utf-8")
        held = hold(partial)
        lengths = [sizes[record.file_name] or 0 for record in records]      # those without a file are left out above
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
        for part in parts:                          # which rows there are is known only now
            for index, fields in enumerate(part.fields, start):
                fields["index"] = index
            start += len(part.fields)
        crew.run(lambda part, tick: _finish(part), parts)
        progress.update(progress.total)
    finally:
        progress.close()


def size_fault(record: ImageRecord, size: Optional[int], image_dir: Path) -> Optional[Problem]:
    """The problem of a picture that is not there, or too large to be read; None of others."""
    if size is None:
        if os.path.exists(image_dir / record.file_name):
            return Problem(str(image_dir / record.file_name), "", NO_FILE, UNREADABLE_PICTURE)
        return Problem(record.origin, record.file_name, f"no such picture in {image_dir}", MISSING_PICTURE)
    if size > MAX_PICTURE:
        what = f"the file has {size >> 20} MB, a record holds {MAX_PICTURE >> 20}"
        return Problem(str(image_dir / record.file_name), "", what, LARGE_PICTURE)
    return None


def _has_objects(record: ImageRecord) -> bool:
    return 0 in record.crowds


def _nothing(request: Request, found: Annotations, problems: list[Problem]) -> DataError:
    if found.records and not problems and not any(map(_has_objects, found.records)):
        return DataError(f"{request.anno_path}: none of its {len(found.records)} images has an object (keep_empty "
                         "takes them all the same)")
    return nothing_left(request.anno_path, problems)


def _refuse_full_disk(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DataError(f"{folder}: {size / 1e6:.0f} MB are needed, {free / 1e6:.0f} are free")


def _divide(records: list[ImageRecord], rows: list[int], count: int, folder: Path) -> list[_Part]:
    """`count` runs of records, of about the same number of bytes each: file after file gives the records in order."""
    total, done, start = sum(rows), 0, 0
    parts: list[_Part] = []
    for end, size in enumerate(rows, 1):
        done += size
        left = count - len(parts) - 1           # parts after this one: each gets a record at least
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
        except PictureError as error:
            part.problems.append(Problem(str(request.image_dir / record.file_name), "", str(error), error.kind))


def _write_row(part: _Part, record: ImageRecord, request: Request) -> None:
    data = read_picture(os.path.join(request.image_dir, record.file_name))
    picture = inspect(data)
    stay, boxes, masks, problems, frame = fit(record, picture, request.masks, request.exif_orientation)
    part.problems += problems
    labels, crowds = record.labels[stay], record.crowds[stay]
    count = len(boxes)
    if not request.keep_empty and 0 not in crowds:
        return
    if not count:       # empty arrays do not read back: a row of zeros, and count says that it is none
        boxes, labels, crowds = np.zeros((1, 4)), np.zeros(1, np.int32), np.zeros(1, np.int32)
    if frame.stored:
        data = without_orientation(data)
    part.writer.add(data, boxes, labels, crowds, encode_masks(masks) if request.masks else b"")
    part.objects += count
    part.with_objects += count > 0
    part.orientations += picture.orientation > 1
    part.fields.append({"image_id": int(record.image_id), "file_name": record.file_name, "height": frame.picture.height,
                        "width": frame.picture.width, "count": count})


def _finish(part: _Part) -> None:
    if part.fields:
        part.writer.finish(part.fields)
    else:
        part.writer.close()
        part.path.unlink()


def _manifest(request: Request, found: Annotations, parts: list[_Part], problems: list[Problem], pictures: dict[str, Any],
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
        "options": request.options, "pictures": f"{rows}/{PICTURES}",
        "fingerprint": {"annotations": found.digest, "pictures": pictures},
    }
