"""Split a folder of images with VOC XML files (such as FaceMaskDetection) into training and validation data.

usage: python split_data.py [--data_path /data] [--val_ratio 0.2] [--seed 1]

DATA/images and DATA/annotations are copied to DATA/train/{images,annotations} and DATA/val/{images,annotations}. The image of
an XML file is the one with the same name, else the one that its <filename> names, as in the conversion. Images that are equal
byte for byte stay on one side, since validating on an image seen in training would say nothing.
"""
import argparse
import hashlib
import html
import os
import random
import re
import shutil
import socket
import sys
from pathlib import Path

# Same as in utils/mindrecord/file_names.py, in order of preference; this file works without that package.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".tga", ".pcx", ".ico", ".pgm", ".ppm",
              ".jfif", ".jp2")
SIDES = ("train", "val")


class SplitError(ValueError):
    """An error of the call or of the data, in one line."""


def find_pairs(data_path: Path) -> tuple:
    """Return ([(image, XML file)] sorted by name, [warnings])."""
    folders = {name: data_path / name for name in ("images", "annotations")}
    for folder in folders.values():
        if not folder.is_dir():
            raise SplitError(f"--data_path: no such folder: {folder}")
    images = [path for path in sorted(folders["images"].iterdir()) if path.suffix.lower() in EXTENSIONS and path.is_file()]
    by_name = {path.name: path for path in images}
    by_stem: dict = {}
    for path in sorted(images, key=lambda path: EXTENSIONS.index(path.suffix.lower())):
        by_stem.setdefault(path.stem, path)
    pairs, no_image, renamed = [], [], []
    for xml in sorted(path for path in folders["annotations"].iterdir() if path.suffix.lower() == ".xml" and path.is_file()):
        named = by_name.get(file_name_of(xml))
        image = named if named and named.stem == xml.stem else by_stem.get(xml.stem, named)
        if image is None:
            no_image.append(f"{xml.name}: left out, it has no image")
            continue
        if named and named.stem != xml.stem and image is not named:
            renamed.append(f"{xml.name}: its image is {image.name}, but its <filename> is {named.name}")
        pairs.append((image, xml))
    warnings = [*_unused(images, pairs), *no_image, *renamed]
    if len(pairs) < 2:
        raise SplitError(f"{data_path}: {len(pairs)} images have an XML file of the same name, expected at least 2")
    return sorted(pairs, key=lambda pair: (pair[0].stem, pair)), warnings


def file_name_of(xml: Path) -> str:
    """Return the content of <filename> without folders."""
    found = re.search(rb"<filename>([^<]*)</filename>", xml.read_bytes())
    name = html.unescape(found[1].decode("utf-8", "replace")).strip() if found else ""
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def _unused(images: list, pairs: list) -> list:
    """Return warnings about images in no pair; first those whose XML file belongs to another image."""
    taken = {image for image, _ in pairs}
    by_stem = {xml.stem: image.name for image, xml in pairs}
    unused = [path for path in images if path not in taken]
    second = [path for path in unused if path.stem in by_stem]
    return ([f"{path.name}: left out, {by_stem[path.stem]} has the same annotation file" for path in second]
            + [f"{path.name}: left out, it has no XML file" for path in unused if path not in second])


def split_pairs(pairs: list, val_ratio: float, seed: int) -> dict:
    """Return {"train": pairs, "val": pairs}, with equal images on the same side and neither side empty."""
    groups = {}
    for pair in pairs:
        groups.setdefault(hashlib.sha256(pair[0].read_bytes()).digest(), []).append(pair)
    groups = list(groups.values())      # sorted by name, so that a seed gives the same split on every machine
    if len(groups) < 2:
        raise SplitError(f"all {len(pairs)} images are equal, so they cannot be split")
    random.Random(seed).shuffle(groups)
    wanted = min(max(1, round(len(pairs) * val_ratio)), len(pairs) - 1)
    val = []
    for group in groups:
        if len(val) + len(group) <= wanted:
            val += group
    val = val or min(groups, key=len)
    chosen = set(val)
    return {"train": [pair for pair in pairs if pair not in chosen], "val": sorted(val)}


def copy_sides(sides: dict, data_path: Path) -> None:
    """Copy to both folders, which appear once all is copied. Existing ones are refused: mixed with them, sides would overlap."""
    refuse_earlier(data_path)
    partial = partial_folder(data_path)
    try:
        for side in SIDES:
            for number, name in enumerate(("images", "annotations")):
                folder = partial / side / name
                folder.mkdir(parents=True)
                for pair in sides[side]:
                    shutil.copy(pair[number], folder)
        refuse_earlier(data_path)       # another process may have been faster
        for side in SIDES:
            (partial / side).rename(data_path / side)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_earlier(data_path: Path) -> None:
    """Raise SplitError if one of the sides exists."""
    for side in SIDES:
        if (data_path / side).exists():
            raise SplitError(f"{data_path / side} already exists; remove or move it to split again")


def partial_folder(data_path: Path) -> Path:
    """Return this process's folder to copy into, and remove those of dead processes on this machine or in this container."""
    namespace = Path("/proc/self/ns/pid")
    place = f"{socket.gethostname()}-{namespace.stat().st_ino if namespace.exists() else 0}"
    own = data_path / f".split_data.{place}.{os.getpid()}.partial"
    for path in data_path.glob(".split_data.*.partial"):
        found = re.fullmatch(rf"\.split_data\.{re.escape(place)}\.([0-9]{{1,9}})\.partial", path.name)
        if path == own or (found and not is_alive(int(found[1]))):
            shutil.rmtree(path, ignore_errors=True)
    return own


def is_alive(pid: int) -> bool:
    """Return whether the process exists; assumed on Windows, where os.kill would end it."""
    try:
        return os.name != "posix" or os.kill(pid, 0) is None
    except ProcessLookupError:
        return False
    except OSError:         # another user's process
        return True


def printable(text: str) -> str:
    """Escape control characters, as model_utils/files.py does, without which this file works."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def number(text: str) -> float:
    """Parse a number more strictly than float(), which also accepts 1_0 and the digits of other scripts."""
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return float(text)


def whole_number(text: str) -> int:
    if not re.fullmatch("[+-]?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data_path", default="/data", help="folder with images/ and annotations/ (%(default)s)")
    parser.add_argument("--val_ratio", type=number, default=0.2, help="fraction for validation (%(default)s)")
    parser.add_argument("--seed", type=whole_number, default=1, help="seed of the random split (%(default)s)")
    args = parser.parse_args(argv)
    try:
        if not 0 < args.val_ratio < 1:
            raise SplitError(f"--val_ratio: expected a number between 0 and 1, got {args.val_ratio:g}")
        data_path = Path(args.data_path).expanduser()
        pairs, warnings = find_pairs(data_path)
        sides = split_pairs(pairs, args.val_ratio, args.seed)
        copy_sides(sides, data_path)
    except (SplitError, OSError) as error:
        print(f"{parser.prog}: error: {printable(str(error))}", file=sys.stderr)
        return 2
    for warning in warnings:
        print(printable(warning), file=sys.stderr)
    for side in SIDES:
        print(f"{data_path / side}: {len(sides[side])} image{'' if len(sides[side]) == 1 else 's'}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("split_data.py: interrupted", file=sys.stderr)
        sys.exit(130)
