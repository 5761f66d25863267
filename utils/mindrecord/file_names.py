"""The names by which annotations call their images, and the files that they mean."""
import os
import posixpath
from pathlib import Path

# What a folder of images is searched for, the first before the others where two files differ in nothing else.
from .decoding import SUFFIXES as EXTENSIONS

LONGEST = 4096      # characters of a path that a system takes
# What ends the name of an image in a line of text, whether or not it can be read.
ENDINGS = (*EXTENSIONS, ".heic")


def without_extension(name: str) -> str:
    """Return a file's name without the extension of an image or of an annotation file; "a.1" keeps its dot."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in (*ENDINGS, ".xml") else name


def ends_as_image(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


class NameFinder:
    r"""Finds the files below a folder that names with folders mean: images\1.jpg, C:\data\images\1.jpg, images/1.jpg.

    The first that is there counts: the name as it is, then with fewer and fewer of its leading folders. A name without
    folders is not looked up. An image has one name, however it is spelt: ./1.jpg is 1.jpg.
    """

    def __init__(self, image_dir: Path):
        self.image_dir = str(image_dir)
        self._folders: dict[str, str] = {}      # as named -> as found

    def find(self, name: str) -> str:
        """Return the name relative to the folder, with slashes; unchanged where nothing is found."""
        if ("/" not in name and "\\" not in name) or len(name) > LONGEST:
            return name
        if "\\" in name and os.path.isfile(os.path.join(self.image_dir, name)):     # Linux allows it in a name
            return name
        name = posixpath.normpath(name.replace("\\", "/"))
        folder, _, base = name.rpartition("/")
        known = self._folders.get(folder)
        if known is not None and os.path.isfile(os.path.join(self.image_dir, known, base)):
            return f"{known}/{base}" if known else base
        parts = folder.split("/")
        for start in range(len(parts) + 1):
            rest = "/".join(parts[start:])
            if os.path.isfile(os.path.join(self.image_dir, rest, base)):
                inside = os.path.relpath(os.path.join(self.image_dir, rest), self.image_dir)
                rest = rest if inside.startswith("..") else inside.removeprefix(".")
                self._folders[folder] = rest
                return f"{rest}/{base}" if rest else base
        return name
