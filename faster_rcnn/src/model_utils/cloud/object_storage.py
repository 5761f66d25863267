"""Files of a job's inputs and results, by address: s3://BUCKET/PATH, obs://BUCKET/PATH or a path of this machine.

In ModelArts' own images moxing reads and writes the buckets; elsewhere boto3 does, as OBS understands S3. For boto3 the
environment has endpoint and keys: S3_ENDPOINT (none: Amazon's), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and all else
that boto3 reads; for obs:// OBS_ENDPOINT, OBS_ACCESS_KEY_ID, OBS_SECRET_ACCESS_KEY and OBS_SECURITY_TOKEN go before.

Faults are InputErrors that begin with the key of the configuration.
"""
import contextlib
import importlib.util
import ipaddress
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlparse

from ..configuration.schema import InputError
from ..files import replacing

if TYPE_CHECKING:       # only jobs with addresses of buckets need boto3
    from boto3.s3.transfer import TransferConfig

THREADS = 16
# Of a request: where every connection is cut, or is open and silent, a transfer ends within minutes.
ATTEMPTS, CONNECT_S, READ_S = 4, 10, 30
# {name relative to the address: what changes with the content}
Listing = dict[str, Any]


class Storage(Protocol):
    """Files at an address."""

    def list(self) -> Listing:
        """Return what is there."""

    def size(self) -> int | None:
        """Return the bytes of all files; None: not known."""

    def download(self, folder: Path) -> None:
        """Bring all files to names relative to `folder`."""

    def check_writable(self) -> None:
        """Take an early look at what will be written at the end."""

    def upload(self, folder: Path, names: Sequence[str]) -> None:
        """Send files of `folder`."""


def open_storage(address: str, key: str) -> Storage:
    """The storage at `address`; key: of the configuration, for messages."""
    match = re.fullmatch(r"(s3|obs)://([^/]+)/*(.*?)/*", address)
    if match:
        if importlib.util.find_spec("moxing"):
            return MoxingStorage(address, key)
        return BucketStorage(match[1], match[2], match[3], key)
    if "://" in address:
        raise InputError(f"{key}: expected s3://BUCKET/PATH, obs://BUCKET/PATH or a path, got {address!r}")
    return FolderStorage(address, key)


class FolderStorage:
    """A folder or a file of this machine."""

    def __init__(self, address: str, key: str):
        self.path, self.key = Path(address), key

    def _files(self) -> dict[str, Path]:
        if self.path.is_file():
            return {self.path.name: self.path}
        if not self.path.is_dir():
            raise InputError(f"{self.key}: no such file or folder: {self.path}")
        return {path.relative_to(self.path).as_posix(): path for path in sorted(self.path.rglob("*")) if path.is_file()}

    def list(self) -> Listing:
        return {name: [(stat := path.stat()).st_size, stat.st_mtime_ns] for name, path in self._files().items()}

    def size(self) -> int:
        return sum(path.stat().st_size for path in self._files().values())

    def download(self, folder: Path) -> None:
        for name, path in self._files().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)

    def check_writable(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.key}: {self.path} cannot be written: {error.strerror}") from None
        if not os.access(self.path, os.W_OK):
            raise InputError(f"{self.key}: {self.path} cannot be written: permission denied")

    def upload(self, folder: Path, names: Sequence[str]) -> None:
        if self.path.resolve() == folder.resolve():
            return
        try:
            for name in names:
                target = self.path / name
                with replacing(target) as partial:
                    shutil.copyfile(folder / name, partial)
        except OSError as error:
            raise InputError(f"{self.key}: {target} cannot be written: {error.strerror}") from error


class BucketStorage:
    """A part of a bucket of S3, or of what understands S3; by boto3."""

    def __init__(self, scheme: str, bucket: str, prefix: str, key: str):
        self.bucket, self.prefix, self.key = bucket, prefix, key
        self.address = f"{scheme}://{bucket}/{prefix}"
        self._objects: dict[str, dict[str, Any]] | None = None
        try:
            import boto3
            import botocore.exceptions
        except ImportError:
            raise InputError(f"{key}: boto3 is needed for {self.address}: pip install -r requirements.txt") from None
        self._errors = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError,
                        boto3.exceptions.Boto3Error, OSError)
        with self._told():
            self._client = boto3.client("s3", **client_options(scheme, os.environ, key))

    def _list(self) -> dict[str, dict[str, Any]]:
        """{name: {"Key", "Size", "ETag", ...}}"""
        if self._objects is None:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            with self._told():
                found = [item for page in pages for item in page.get("Contents", ())]
            self._objects = {name: item for item in found if (name := self._name(item["Key"]))}
        return self._objects

    def _name(self, key: str) -> str:
        """Relative to the address; nothing for a folder's mark and for what only begins with the same letters."""
        if key.endswith("/"):
            return ""
        if key == self.prefix:
            return PurePosixPath(key).name
        head = f"{self.prefix}/" if self.prefix else ""
        if not key.startswith(head):
            return ""
        name = key[len(head):]
        if name.startswith("/") or {"..", ".", ""} & set(re.split(r"[/\\]", name)):
            raise InputError(f"{self.key}: {self.address} holds {key!r}, which is no name of a file")
        return name

    def list(self) -> Listing:
        return {name: [item["Size"], item["ETag"]] for name, item in self._list().items()}

    def size(self) -> int:
        return sum(item["Size"] for item in self._list().values())

    def download(self, folder: Path) -> None:
        def fetch(name: str) -> None:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(self.bucket, objects[name]["Key"], str(target), Config=config)

        objects = self._list()
        config = _transfer(len(objects))
        with self._told():
            side_by_side(fetch, objects)

    def check_writable(self) -> None:
        with self._told():
            self._client.head_bucket(Bucket=self.bucket)

    def upload(self, folder: Path, names: Sequence[str]) -> None:
        def send(name: str) -> None:
            key = f"{self.prefix}/{name}" if self.prefix else name
            self._client.upload_file(str(folder / name), self.bucket, key, Config=config)

        config = _transfer(len(names))
        with self._told():
            side_by_side(send, names)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise InputError(f"{self.key}: {self.address}: {' '.join(str(error).split())}") from error


def side_by_side(work: Callable[[str], None], names: Iterable[str]) -> None:
    """work(name) for each name in THREADS threads; the first error ends it, without beginning with those that wait."""
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for done in as_completed([pool.submit(work, name) for name in names]):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _transfer(files: int) -> "TransferConfig":
    """Many files go side by side, a few large ones in parts that do."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(use_threads=files < THREADS, num_download_attempts=2)


def client_options(scheme: str, environ: Mapping[str, str], key: str) -> dict[str, Any]:
    """Arguments of boto3.client from the environment."""
    from botocore.config import Config

    own = {name: environ.get(f"OBS_{name}") for name in ("ENDPOINT", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SECURITY_TOKEN")}
    own = own if scheme == "obs" else dict.fromkeys(own)
    endpoint = own["ENDPOINT"] or environ.get("S3_ENDPOINT") or environ.get("AWS_ENDPOINT_URL")
    if scheme == "obs" and not endpoint:
        raise InputError(f"{key}: OBS_ENDPOINT is not set: the address of OBS in your region, such as "
                         "https://obs.cn-north-4.myhuaweicloud.com")
    if endpoint and "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    options = {"endpoint_url": endpoint, "aws_access_key_id": own["ACCESS_KEY_ID"],
               "aws_secret_access_key": own["SECRET_ACCESS_KEY"], "aws_session_token": own["SECURITY_TOKEN"],
               "region_name": environ.get("S3_REGION") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
               or "us-east-1"}
    # OBS takes the bucket as a part of the host's name alone, and knows nothing of the checksums that boto3 adds by now.
    style = "virtual" if scheme == "obs" and not _is_plain_host(endpoint or "") else "auto"
    config = Config(retries={"max_attempts": ATTEMPTS, "mode": "standard"}, connect_timeout=CONNECT_S, read_timeout=READ_S,
                    max_pool_connections=4 * THREADS,
                    request_checksum_calculation="when_required", response_checksum_validation="when_required",
                    s3={"addressing_style": style})
    return {**{name: value for name, value in options.items() if value}, "config": config}


def _is_plain_host(endpoint: str) -> bool:
    """An address or a name without a domain, in front of which no bucket can be written."""
    host = urlparse(endpoint).hostname or ""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return "." not in host


class MoxingStorage:
    """A part of a bucket, by the library of ModelArts' images."""

    # It raises its own, and those of the library below it.
    def __init__(self, address: str, key: str):
        import moxing

        self.file, self.address, self.key = moxing.file, address.rstrip("/"), key

    def _is_folder(self) -> bool:
        return self.file.is_directory(self.address)

    def list(self) -> Listing:
        with self._told():
            if not self.file.exists(self.address):
                return {}
            if not self._is_folder():
                return {PurePosixPath(self.address).name: None}
            return {name: None for name in self.file.list_directory(self.address, recursive=True) if not name.endswith("/")}

    def size(self) -> None:
        return None

    def download(self, folder: Path) -> None:
        with self._told():
            if self._is_folder():
                self.file.copy_parallel(self.address, str(folder))
            else:
                self.file.copy(self.address, str(folder / PurePosixPath(self.address).name))

    def check_writable(self) -> None:
        bucket = "/".join(self.address.split("/")[:3])
        with self._told():
            if not self.file.exists(bucket):
                raise InputError(f"{self.key}: no such bucket: {bucket}")

    def upload(self, folder: Path, names: Sequence[str]) -> None:
        with self._told():
            for name in names:
                self.file.copy(str(folder / name), f"{self.address}/{name}")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{self.key}: {self.address}: {' '.join(str(error).split())}") from error
