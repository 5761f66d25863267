"""Fetch the inputs of a job once per machine into a folder, and unpack them there.

The file MARK in such a folder records what was fetched, so that later processes, and a job that is started again, either find the
files complete or fetch them again. LOCK admits one process at a time.
"""
import json
import logging
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from ...util import counted
from ..configuration.schema import InputError
from ..turns import turn
from .object_storage import FolderStorage, Storage, open_storage

MARK, LOCK = ".fetched.json", ".fetching.lock"
WAIT_SECONDS = 6 * 3600
# Largest total size of an unpacked zip file: this many bytes, or this many times its own size. Annotations shrink to a tenth.
UNPACKED_BYTES, UNPACKED_RATIO = 1 << 30, 100
COPY_BYTES = 1 << 20
log = logging.getLogger(__name__)


def fetched_root(address: str, folder: Path | str) -> Path:
    """Return where the files of `address` will be: `folder`, or the address itself if it is a local folder without zip files."""
    path = Path(address)
    return path if "://" not in address and path.is_dir() and not any(path.glob("*.[zZ][iI][pP]")) else Path(folder)


def fetch(address: str, folder: Path | str, key: str, folder_key: str, wait_seconds: float = WAIT_SECONDS) -> None:
    """Fetch the files of `address` into `folder`.

    Args:
        address: s3://BUCKET/PATH, obs://BUCKET/PATH or a local path.
        folder: where to put the files; new, empty, or filled by an earlier call.
        key, folder_key: the configuration keys of `address` and `folder`, for messages.
        wait_seconds: how long to wait for another process that fetches into the same folder.

    Raises:
        InputError: if the files cannot be read, unpacked or written.
    """
    folder = Path(folder)
    storage = open_storage(address, key)
    if fetched_root(address, folder) != folder:
        return
    if isinstance(storage, FolderStorage) and storage.path.resolve() == folder.resolve():
        raise InputError(f"{key}: {address} holds zip files; set {folder_key} to another folder, to unpack them there")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with turn(folder / LOCK, wait_seconds):
            _bring(storage, address, folder, key, folder_key)
    except OSError as error:
        raise InputError(f"{folder_key}: {folder} cannot be written: {error.strerror or error}") from error


def _bring(storage: Storage, address: str, folder: Path, key: str, folder_key: str) -> None:
    listing = storage.list()
    if not listing:
        raise InputError(f"{key}: {address} holds no files")
    wanted = {"address": address, "files": listing}
    there = _read_mark(folder)
    if there == wanted:
        return
    others = [path for path in folder.iterdir() if path.name not in (MARK, LOCK)]
    if others and there is None:
        raise InputError(f"{folder_key}: {folder} holds other files, such as {others[0].name}; give a new or empty folder")
    for path in others:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (folder / MARK).write_text("{}", encoding="utf-8")      # from here on the folder's files are ours, but incomplete
    size = storage.size()
    if size is not None and size > shutil.disk_usage(folder).free:
        raise InputError(f"{folder_key}: {folder} has no room for {size / 1e9:.1f} GB from {address}")
    log.info("%s: %s%s from %s to %s", key, counted(len(listing), "file"), f", {size / 1e6:.1f} MB," if size else "",
             address, folder)
    start = time.monotonic()
    storage.download(folder)
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".zip" and path.is_file()):
        unpack(path, path.parent, key)
        path.unlink()
    (folder / MARK).write_text(json.dumps(wanted), encoding="utf-8")
    log.info("%s: fetched in %.0f s", key, time.monotonic() - start)


def _read_mark(folder: Path) -> dict[str, Any] | None:
    """Return what the folder holds according to its mark; {} if it is incomplete, None if there is no mark."""
    try:
        return json.loads((folder / MARK).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def unpack(path: Path, folder: Path, key: str) -> None:
    """Unpack a zip file into `folder`. Raises InputError for harmful members, without writing anything outside `folder`."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            targets = [_target(member, folder) for member in members]
            _check_size(members, path, folder)
            for member, target in zip(members, targets):
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("xb") as file:
                    _copy(source, file, member)
    except Refused as error:
        raise InputError(f"{key}: {path.name}: {error}") from None
    except FileExistsError as error:
        raise InputError(f"{key}: {path.name}: {error.filename} already exists") from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise InputError(f"{key}: {path.name}: damaged, incomplete or unsupported zip file: {error}") from error


class Refused(Exception):
    """A member that must not be unpacked; the message says why."""


def _target(member: zipfile.ZipInfo, folder: Path) -> Path:
    name = member.filename.replace("\\", "/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise Refused(f"{name!r} is a link or a device; only files and folders are unpacked")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name) or parts[-1] in (MARK, LOCK):
        raise Refused(f"{name!r} would be written outside the folder, or over its mark")
    return folder / name


def _check_size(members: Iterable[zipfile.ZipInfo], path: Path, folder: Path) -> None:
    total, packed = sum(member.file_size for member in members), path.stat().st_size
    if total > max(UNPACKED_BYTES, UNPACKED_RATIO * packed):
        raise Refused(f"{packed / 1e6:.1f} MB would unpack to {total / 1e9:.1f} GB")
    if total > shutil.disk_usage(folder).free:
        raise Refused(f"{folder} has no room for its {total / 1e9:.1f} GB")


def _copy(source: IO[bytes], file: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Copy a member's bytes, but no more than it declares."""
    left = member.file_size
    while chunk := source.read(COPY_BYTES):
        left -= len(chunk)
        if left < 0:
            raise Refused(f"{member.filename!r} is larger than the {member.file_size} bytes that it declares")
        file.write(chunk)
