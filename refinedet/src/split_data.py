# Same as faster_rcnn/src/split_data.py
"""Split a folder of pictures with VOC XML files (FaceMaskDetection as it comes) into training and validation data.

usage: python split_data.py [--data_path /data] [--val_ratio 0.2] [--seed 1]

DATA/images and DATA/annotations are copied to DATA/train/{images,annotations} and DATA/val/{images,annotations}.
Pictures that are equal byte for byte stay on one side: a picture seen in training says nothing in validation.
"""
import argparse
import hashlib
import random
import shutil
import sys
from pathlib import Path

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp"}
SIDES = ("train", "val")


class SplitError(ValueError):
    """A fault of the call or of the data, in one line."""


def find_pairs(data_path: Path) -> tuple:
    """([(picture, XML file)] sorted by name, [warnings])."""
    folders = {name: data_path / name for name in ("images", "annotations")}
    for folder in folders.values():
        if not folder.is_dir():
            raise SplitError(f"--data_path: no such folder: {folder}")
    pictures, warnings = {}, []
    for path in sorted(folders["images"].iterdir()):
        if path.suffix.lower() not in EXTENSIONS:
            continue
        if path.stem in pictures:
            warnings.append(f"{path.name}: left out, {pictures[path.stem].name} has the same annotation file")
        else:
            pictures[path.stem] = path
    labels = {path.stem: path for path in sorted(folders["annotations"].iterdir()) if path.suffix.lower() == ".xml"}
    warnings += [f"{pictures[stem].name}: left out, it has no XML file" for stem in pictures if stem not in labels]
    warnings += [f"{labels[stem].name}: left out, it has no picture" for stem in labels if stem not in pictures]
    pairs = [(pictures[stem], labels[stem]) for stem in sorted(pictures) if stem in labels]
    if len(pairs) < 2:
        raise SplitError(f"{data_path}: {len(pairs)} pictures with an XML file of the same name, at least 2 are needed")
    return pairs, warnings


def split_pairs(pairs: list, val_ratio: float, seed: int) -> dict:
    """{"train": pairs, "val": pairs}: equal pictures on one side, neither side empty."""
    groups = {}
    for pair in pairs:
        groups.setdefault(hashlib.sha256(pair[0].read_bytes()).digest(), []).append(pair)
    groups = list(groups.values())      # in the order of the names: one seed, one split, on every machine
    if len(groups) < 2:
        raise SplitError(f"all {len(pairs)} pictures are equal")
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
    """Both folders appear when all is copied. Earlier ones are not touched: mixed with them, sides would overlap."""
    for side in SIDES:
        if (data_path / side).exists():
            raise SplitError(f"{data_path / side} exists already: remove it, or move it away, to split anew")
    partial = data_path / ".split_data.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for side in SIDES:
            for number, name in enumerate(("images", "annotations")):
                folder = partial / side / name
                folder.mkdir(parents=True)
                for pair in sides[side]:
                    shutil.copy(pair[number], folder)
        for side in SIDES:
            (partial / side).rename(data_path / side)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data_path", default="/data", help="folder with images/ and annotations/ (%(default)s)")
    parser.add_argument("--val_ratio", type=float, default=0.2, help="part for validation (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another split (%(default)s)")
    args = parser.parse_args(argv)
    try:
        if not 0 < args.val_ratio < 1:
            raise SplitError(f"--val_ratio: {args.val_ratio:g} is not between 0 and 1")
        data_path = Path(args.data_path)
        pairs, warnings = find_pairs(data_path)
        sides = split_pairs(pairs, args.val_ratio, args.seed)
        copy_sides(sides, data_path)
    except (SplitError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    for warning in warnings:
        print(warning, file=sys.stderr)
    for side in SIDES:
        print(f"{data_path / side}: {len(sides[side])} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
