"""Resolve the image names in annotations to files."""
import os
import posixpath
from pathlib import Path

# Extensions that are searched for; if files differ only in the extension, the first in this list is preferred.
from .decoding import SUFFIXES as EXTENSIONS

LONGEST = 4096      # longest path of the operating system
# Endings that mark the image name in a line of text, even if the format cannot be read.
ENDINGS = (*EXTENSIONS, ".heic")


def without_extension(name: str) -> str:
    """Return a name without the extension of an image or an XML file; "a.1" keeps its dot."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in (*ENDINGS, ".xml") else name


def ends_as_image(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


class NameFinder:
    r"""Finds files below a folder by names that contain other folders: images\1.jpg, C:\data\images\1.jpg, images/1.jpg.

    The name is tried as it is, then with ever fewer leading folders; the first existing file is taken. A name without folders
    is not looked up. Different spellings of a file give the same name: ./1.jpg becomes 1.jpg.
    """

    def __init__(self, image_dir: Path):
        self.image_dir = str(image_dir)
        self._folders: dict[str, str] = {}      # as named -> as found

    def find(self, name: str) -> str:
        """Return the name relative to the folder, with slashes; unchanged if no file is found."""
        if ("/" not in name and "\\" not in name) or len(name) > LONGEST:
            return name
        if "\\" in name and os.path.isfile(os.path.join(self.image_dir, name)):     # Linux allows backslashes in names
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
