"""Keep copies of files in several model directories equal to their originals.

Line 1 of a copy (line 2 below `#!`) gives the path of its original from the root, and the renames:

    # Same as faster_rcnn/src/FasterRcnn/rpn.py with FasterRcnn -> MaskRcnn, faster_rcnn -> mask_rcnn

usage: python tests/sync_copies.py [--check] [--root=DIR]
Rewrites every copy that differs from its original, and lists the copies in .gitattributes as generated, so that a diff shows a
change once. With --check it shows the differences and exits 1 instead.
"""
import argparse
import difflib
import os
import re
import sys
from pathlib import Path

MARKER = re.compile(r"# Same as (?P<original>\S+)(?: with (?P<renames>.+))?\s*")
SUFFIXES = {".py", ".sh", ".yaml", ".yml", ".toml", ".cfg", ".txt", ".cmake", ""}
SKIPPED = {"__pycache__", "build", "demo_output", "output", "node_modules", "site"}
ATTRIBUTES = ".gitattributes"
# The lines of .gitattributes above this one are kept, the lines below it are rewritten.
LISTED = "# Copies, listed by tests/sync_copies.py. Edit their originals, then run `make sync`."


class SyncError(Exception):
    """A marker that cannot be followed. The message is one line."""


def find_copies(root: Path) -> list:
    """Return the paths of all files with a marker, sorted."""
    return sorted(path for path in find_files(root, SUFFIXES) if _split(path)[1])


def find_files(root: Path, suffixes: set) -> list:
    """Return the files of the checkout with one of the suffixes. Skip hidden folders, environments and outputs."""
    found = []
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = [name for name in folders if name not in SKIPPED and not name.startswith(".")
                      and not (here / name / "pyvenv.cfg").exists()]
        paths = (here / name for name in names if Path(name).suffix in suffixes)
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found


def wanted_text(copy: Path, root: Path) -> str:
    """Return what the copy should hold: its own head, then its original with the declared renames."""
    head, match = _split(copy)
    name = copy.relative_to(root)
    original = (root / match["original"]).resolve()
    if root.resolve() not in original.parents or not original.is_file():
        raise SyncError(f"{name}: its original {match['original']} is not in the repository")
    if original == copy.resolve():
        raise SyncError(f"{name}: names itself as its original")
    if _split(original)[1]:
        raise SyncError(f"{name}: its original {match['original']} is a copy too; name the one that it is made from")
    text = _read(original)
    renames = _parse_renames(match["renames"], name)
    for old in renames:
        if old not in text:
            raise SyncError(f"{name}: {old!r} is to be renamed, but does not stand in {match['original']}")
    if renames:  # one pass, so that a new name is never renamed again
        text = re.sub("|".join(map(re.escape, renames)), lambda found: renames[found[0]], text)
    if text.startswith("#!"):
        text = text.partition("\n")[2]
    return head + text


def generated_patterns(root: Path) -> list:
    """Return the patterns of .gitattributes that match the copies and nothing else: FOLDER/** if a folder holds only copies."""
    copies = set(find_copies(root))
    mixed = {folder for path in find_files(root, {*SUFFIXES, ".md"}) if path not in copies and path.stat().st_size
             for folder in path.parents}
    patterns = set()
    for copy in copies:
        pure = [folder for folder in copy.parents if root in folder.parents and folder not in mixed]
        patterns.add(f"{pure[-1].relative_to(root).as_posix()}/**" if pure else copy.relative_to(root).as_posix())
    return sorted(patterns)


def sync_attributes(root: Path, check: bool, out=print) -> int:
    """Rewrite the list of the copies in .gitattributes, or with `check` compare it. Return the number of faults, 0 or 1."""
    path = root / ATTRIBUTES
    got = _read(path) if path.is_file() else ""
    kept = got.partition(LISTED)[0]
    lines = [f"{pattern} linguist-generated" for pattern in generated_patterns(root)]
    wanted = kept + "".join(f"{line}\n" for line in (LISTED, *lines))
    if wanted == got:
        return 0
    if check:
        out("\n".join(difflib.unified_diff(got.splitlines(), wanted.splitlines(), ATTRIBUTES, f"{ATTRIBUTES} by the copies",
                                           lineterm="")))
        return 1
    path.write_bytes(wanted.encode("utf-8"))
    out(f"rewrote {ATTRIBUTES}")
    return 0


def sync(root: Path, check: bool, out=print) -> int:
    """Rewrite every copy, or with `check` compare it. Return the number of faults: wrong copies, bad markers."""
    faults = 0
    for copy in find_copies(root):
        name = copy.relative_to(root).as_posix()
        try:
            wanted, got = wanted_text(copy, root), _read(copy)
        except SyncError as error:
            out(f"error: {error}")
            faults += 1
            continue
        if wanted == got:
            continue
        if check:
            faults += 1
            lines = difflib.unified_diff(got.splitlines(), wanted.splitlines(), name, f"{name} by its original",
                                         lineterm="")
            out("\n".join(lines) or f"{name}: line ends differ from the original's")
        else:
            copy.write_bytes(wanted.encode("utf-8"))
            out(f"rewrote {name}")
    return faults


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8")


def _split(path: Path) -> tuple:
    """Return (lines up to and including the marker, match of the marker or None)."""
    with path.open("rb") as stream:
        first = stream.readline(2000)
        second = stream.readline(2000) if first.startswith(b"#!") else b""
    line = (second or first).decode("utf-8", "replace")
    return (first + second).decode("utf-8", "replace"), MARKER.fullmatch(line)


def _parse_renames(text, name) -> dict:
    renames = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        old, arrow, new = (item.strip() for item in part.partition("->"))
        if not (old and arrow and new) or old in renames:
            raise SyncError(f"{name}: expected `with OLD -> NEW, OLD2 -> NEW2`, got {part.strip()!r}")
        renames[old] = new
    return renames


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description="Rewrite the copies of files that stand in several model directories.")
    parser.add_argument("--check", action="store_true", help="change nothing, show what differs, exit 1")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="root of the checkout")
    options = parser.parse_args(argv)
    root = options.root.resolve()
    faults = sync(root, options.check) + sync_attributes(root, options.check)
    if faults and options.check:
        print(f"files that differ from what `make sync` writes: {faults}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
