"""The command lines of convert.py and check.py."""
import argparse
import itertools
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

import cv2

from ..command import status_after
from ..files import log_to_stderr, printable
from ..report.dataset import Gallery, write_dataset
from ..signals import guarded
from .batches import draw_batches, model_folder
from .conversion import convert, ensure
from .detection import find_data
from .doctor import diagnose
from .drawing import Drawing
from .errors import DataError, counted
from .format import decode_text
from .formats import all_formats
from .image_files import EXIF_RULES
from .readers import check_paths, check_source
from .records import BACKGROUND
from .splitting import SIDES, Split
from .values import number, whole_number

BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
CONVERT = """Convert a data set to MindRecord.
A complete conversion of the same data that is already in OUTPUT_DIR is kept."""
CHECK = """List everything that is wrong with a data set, and describe what is usable. check.py FOLDER detects the format.
Exit status: 0 no problems, 1 problems found, 2 wrong usage."""


def convert_main(argv: Optional[Sequence[str]] = None) -> int:
    parser = _parser("convert.py", CONVERT)
    parser.add_argument("--output_dir", required=True, type=os.path.expanduser, help="folder to write the conversion to")
    parser.add_argument("--keep_empty", nargs="?", const=True, default=False, type=_boolean, metavar="True|False",
                        help="keep images without objects (False)")
    parser.add_argument("--shards", type=_positive, help="number of files (one per worker)")
    parser.add_argument("--force", action="store_true", help="convert even if a complete conversion exists")
    args = parser.parse_args(argv)
    return _guard(parser, lambda: _convert(args))


def _convert(args: argparse.Namespace) -> int:
    start = time.monotonic()
    manifest = (convert if args.force else ensure)(
        args.source, args.image_dir, args.anno_path, args.output_dir, args.classes, args.image_set, args.workers,
        args.keep_empty, args.shards, masks=args.masks, exif_orientation=args.exif_orientation, split=_split(args))
    print(f"{args.output_dir}: {counted(manifest['count'], 'image')}, {counted(manifest['objects'], 'object')}, "
          f"{counted(len(manifest['categories']), 'class')}, {'masks, ' if args.masks else ''}"
          f"{counted(len(manifest['files']), 'file')}, "
          f"{time.monotonic() - start:.1f} s")
    for kind, count in manifest["dropped"].items():
        print(f"    dropped: {count} x {kind}")
    if manifest["clipped"]:
        print(f"    clipped: {counted(manifest['clipped'], 'box')}")
    return 0


def check_main(argv: Optional[Sequence[str]] = None) -> int:
    parser = _parser("check.py", CHECK, required=False)
    parser.add_argument("folder", nargs="?", type=_path, metavar="FOLDER",
                        help="folder with images and annotations, instead of --source, --image_dir and --anno_path")
    parser.add_argument("--draw", type=_path, metavar="DIR", help="draw images with their boxes and masks into this folder")
    parser.add_argument("--draw_count", type=_positive, default=50, help="maximum number of images to draw (50)")
    parser.add_argument("--report", type=_path, metavar="FILE", help="write findings and sample images to an HTML page, such as "
                        "report.html; if FOLDER holds several data sets, their number is appended to the file name")
    parser.add_argument("--config_path", type=_path, metavar="YAML", help="with --draw: also draw augmented training batches as "
                        "this configuration of a model makes them from this data")
    parser.add_argument("--model", type=_path, metavar="DIR", help="model directory that the configuration belongs to (the folder "
                        "of the YAML)")
    words = sys.argv[1:] if argv is None else argv
    # The word after --masks is its value only if it is a boolean; otherwise it is FOLDER.
    args = parser.parse_args(["--masks=True" if word == "--masks" and following.lower() not in BOOLEANS else word
                              for word, following in itertools.zip_longest(words, words[1:], fillvalue="")])
    if args.folder is None and (args.source is None or args.anno_path is None):
        parser.error("give FOLDER, or --source and --anno_path")
    if args.folder is not None and (args.source or args.anno_path):
        parser.error("give FOLDER, or --source and --anno_path, not both")
    if args.config_path and not args.draw:
        parser.error("--config_path requires --draw")
    return _guard(parser, lambda: _check_folder(args) if args.folder is not None else _check(args, args.draw))


def _check_folder(args: argparse.Namespace) -> int:
    """Check every data set in the folder."""
    status = 0
    found = find_data(args.folder)
    for place_number, item in enumerate(found, 1):
        print(printable(f"{item.entry.title}: --source={item.entry.name} {item.flags()}"))
        place = {**vars(args), "source": item.entry.name, **item.place._asdict()}
        place.update({key: value for key in ("image_dir", "image_set") if (value := getattr(args, key))})
        folder = args.draw and (args.draw if len(found) == 1 else args.draw / str(place_number))
        if args.report and len(found) > 1:
            place["report"] = args.report.with_stem(f"{args.report.stem}_{place_number}")
        status = max(status, _check(argparse.Namespace(**place), folder))
    return status


def _check(args: argparse.Namespace, draw: Optional[Path]) -> int:
    check_source(args.source, args.masks)
    check_paths(args.source, args.image_dir, args.anno_path, args.image_set)
    drawing = Drawing(draw, args.draw_count) if draw else None
    gallery = Gallery() if args.report else None
    if draw and args.config_path:
        model_folder(args)      # report a wrong path before decoding all images
    try:
        found = diagnose(args.source, args.image_dir, args.anno_path, args.classes, args.image_set, args.workers,
                         masks=args.masks, exif_orientation=args.exif_orientation, split=_split(args),
                         drawings=[viewer for viewer in (drawing, gallery) if viewer])
    except DataError as error:
        print(printable(str(error)))
        print("problems: 1; the annotations could not be read any further")
        return 1
    for line in (*found.problems, *found.notes, *found.lines()):
        print(line)
    if gallery:
        facts = {"format": args.source, "annotations": args.anno_path, "images": args.image_dir, "set": args.image_set}
        write_dataset(args.report, "Data set", found, gallery, facts)
        print(f"written: {args.report}")
    if drawing:
        print(f"drawn: {counted(drawing.drawn, 'image')} in {draw}")
    if draw and args.config_path:
        print(f"drawn: {counted(draw_batches(args, draw / 'batches'), 'augmented image')} in {draw / 'batches'}")
    return 1 if found.problems or not found.images else 0


def _split(args: argparse.Namespace) -> Optional[Split]:
    return Split(args.val_ratio, args.side) if args.val_ratio else None


def _parser(name: str, description: str, required: bool = True) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=name, description=description, allow_abbrev=False)
    formats = all_formats()
    parser.add_argument("--source", "--dataset", required=required, choices=tuple(formats),
                        help=f"annotation format: {', '.join(entry.title for entry in formats.values())}")
    optional = ", ".join(name for name, entry in formats.items() if entry.find_images)
    parser.add_argument("--image_dir", type=os.path.expanduser,
                        help=f"folder of the images; optional for {optional} if the annotations locate them")
    parser.add_argument("--anno_path", required=required, type=os.path.expanduser,
                        help="; ".join(f"{name}: {entry.anno}" for name, entry in formats.items()))
    lists = "; ".join(f"{name}: {entry.image_set}" for name, entry in formats.items() if entry.image_set)
    parser.add_argument("--image_set", type=os.path.expanduser, help=f"{lists} (all)")
    parser.add_argument("--val_ratio", type=_ratio, help="split the images: fraction used for validation, such as 0.2 (0)")
    parser.add_argument("--side", choices=SIDES, default=SIDES[0], help="with --val_ratio: side of the split to use (train)")
    parser.add_argument("--classes", type=_classes, metavar="A,B,C|@FILE",
                        help="class names in the order of their labels, or a file with one per line (all)")
    with_masks = ", ".join(name for name, entry in formats.items() if entry.masks)
    parser.add_argument("--masks", nargs="?", const=True, default=False, type=_boolean, metavar="True|False",
                        help=f"{with_masks}: read masks too; objects without a usable mask are dropped (False)")
    parser.add_argument("--exif_orientation", choices=EXIF_RULES, default=EXIF_RULES[0],
                        help="apply: boxes refer to the image turned by its EXIF orientation; ignore: to the image as stored; "
                             "auto: to the turned image, unless only the stored image has the annotated size (auto)")
    parser.add_argument("--workers", type=_positive, help="number of threads (one per core, at most 8)")
    return parser


def _guard(parser: argparse.ArgumentParser, work: Callable[[], int]) -> int:
    stream: Any
    for stream in (sys.stdout, sys.stderr):     # file names may hold characters that the terminal's encoding lacks
        stream.reconfigure(errors="backslashreplace")
    cv2.setLogLevel(0)                          # problems with images are reported in our own messages
    warnings.filterwarnings("ignore", module="PIL")     # Pillow warns about odd tags in images that decode fine
    log_to_stderr()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)       # so that `check.py ... | head` ends quietly
    try:
        with guarded():
            return work()
    except (Exception, KeyboardInterrupt) as error:     # noqa: BLE001
        return status_after(error, parser.prog)


def _positive(text: str) -> int:
    value = whole_number(text)
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return value


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _ratio(text: str) -> float:
    value = number(text)
    if value is None or not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got {text!r}")
    return value


def _boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")
    return BOOLEANS[text.lower()]


def _classes(text: str) -> list[str]:
    """Return the class names, with the background inserted first if it is missing."""
    if text.startswith("@"):
        try:
            path = Path(text[1:]).expanduser()
            names = decode_text(path, path.read_bytes()).splitlines()
        except (OSError, DataError) as error:
            raise argparse.ArgumentTypeError(f"{text[1:]} cannot be read: {error}") from error
    else:
        names = text.split(",")
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected at least one class name")
    return names if names[0] == BACKGROUND else [BACKGROUND, *names]
