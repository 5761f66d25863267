# Same as faster_rcnn/src/model_utils/cloud/object_storage.py
"""Access the inputs and results of a job by address: s3://BUCKET/PATH, obs://BUCKET/PATH or a local path.

ModelArts' own images access buckets through moxing; elsewhere boto3 does, since OBS speaks the S3 protocol. boto3 takes endpoint
and keys from the environment: S3_ENDPOINT (default: Amazon's), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and its other variables.
For obs://, OBS_ENDPOINT, OBS_ACCESS_KEY_ID, OBS_SECRET_ACCESS_KEY and OBS_SECURITY_TOKEN override them.

Failures raise InputError; the message begins with the configuration key.
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

if TYPE_CHECKING:       # only jobs that use buckets need boto3
    from boto3.s3.transfer import TransferConfig

THREADS = 16
# Limits of a request, so that a transfer fails within minutes if connections are cut, or open but silent.
ATTEMPTS, CONNECT_S, READ_S = 4, 10, 30
# {name relative to the address: a value that changes with the content}
Listing = dict[str, Any]


class Storage(Protocol):
    """Files at an address. Names are relative to the address, with "/"."""

    def list(self) -> Listing:
        """Return the files with a value each that changes with the content."""

    def size(self) -> int | None:
        """Return the total size in bytes, or None if it is unknown."""

    def download(self, folder: Path) -> None:
        """Download all files into `folder`."""

    def check_writable(self) -> None:
        """Check early that results can be written here at the end."""

    def upload(self, folder: Path, names: Sequence[str]) -> None:
        """Upload the files `names` of `folder`."""


def open_storage(address: str, key: str) -> Storage:
    """Return the storage at `address`. key: the configuration key, for messages. Raises InputError for an unknown scheme."""
    match = re.fullmatch(r"(s3|obs)://([^/]+)/*(.*?)/*", address)
    if match:
        if importlib.util.find_spec("moxing"):
            return MoxingStorage(address, key)
        return BucketStorage(match[1], match[2], match[3], key)
    if "://" in address:
        raise InputError(f"{key}: expected s3://BUCKET/PATH, obs://BUCKET/PATH or a path, got {address!r}")
    return FolderStorage(address, key)


class FolderStorage:
    """A local folder or file."""

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
    """A prefix of a bucket in S3 or a compatible service, accessed through boto3."""

    def __init__(self, scheme: str, bucket: str, prefix: str, key: str):
        self.bucket, self.prefix, self.key = bucket, prefix, key
        self.address = f"{scheme}://{bucket}/{prefix}"
        self._objects: dict[str, dict[str, Any]] | None = None
        try:
            import boto3
            import botocore.exceptions
        except ImportError:
            raise InputError(f"{key}: {self.address} needs boto3: pip install -r requirements.txt") from None
        self._errors = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError,
                        boto3.exceptions.Boto3Error, OSError)
        with self._input_errors():
            self._client = boto3.client("s3", **client_options(scheme, os.environ, key))

    def _list(self) -> dict[str, dict[str, Any]]:
        """Return {name: {"Key", "Size", "ETag", ...}}."""
        if self._objects is None:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            with self._input_errors():
                found = [item for page in pages for item in page.get("Contents", ())]
            self._objects = {name: item for item in found if (name := self._name(item["Key"]))}
        return self._objects

    def _name(self, key: str) -> str:
        """Return the name relative to the address, or "" for folder markers and keys that only share the first letters."""
        if key.endswith("/"):
            return ""
        if key == self.prefix:
            return PurePosixPath(key).name
        head = f"{self.prefix}/" if self.prefix else ""
        if not key.startswith(head):
            return ""
        name = key[len(head):]
        if name.startswith("/") or {"..", ".", ""} & set(re.split(r"[/\\]", name)):
            raise InputError(f"{self.key}: {self.address} holds {key!r}, which is not a file name")
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
        with self._input_errors():
            side_by_side(fetch, objects)

    def check_writable(self) -> None:
        with self._input_errors():
            self._client.head_bucket(Bucket=self.bucket)

    def upload(self, folder: Path, names: Sequence[str]) -> None:
        def send(name: str) -> None:
            key = f"{self.prefix}/{name}" if self.prefix else name
            self._client.upload_file(str(folder / name), self.bucket, key, Config=config)

        config = _transfer(len(names))
        with self._input_errors():
            side_by_side(send, names)

    @contextlib.contextmanager
    def _input_errors(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise InputError(f"{self.key}: {self.address}: {' '.join(str(error).split())}") from error


def side_by_side(work: Callable[[str], None], names: Iterable[str]) -> None:
    """Call work(name) for each name in THREADS threads; the first error cancels the calls that have not started."""
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for done in as_completed([pool.submit(work, name) for name in names]):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _transfer(files: int) -> "TransferConfig":
    """Return settings that transfer many files in parallel, and a few large ones in parallel parts."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(use_threads=files < THREADS, num_download_attempts=2)


def client_options(scheme: str, environ: Mapping[str, str], key: str) -> dict[str, Any]:
    """Return the arguments of boto3.client according to the environment."""
    from botocore.config import Config

    own = {name: environ.get(f"OBS_{name}") for name in ("ENDPOINT", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SECURITY_TOKEN")}
    own = own if scheme == "obs" else dict.fromkeys(own)
    endpoint = own["ENDPOINT"] or environ.get("S3_ENDPOINT") or environ.get("AWS_ENDPOINT_URL")
    if scheme == "obs" and not endpoint:
        raise InputError(f"{key}: OBS_ENDPOINT is not set; set it to the address of OBS in your region, such as "
                         "https://obs.cn-north-4.myhuaweicloud.com")
    if endpoint and "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    options = {"endpoint_url": endpoint, "aws_access_key_id": own["ACCESS_KEY_ID"],
               "aws_secret_access_key": own["SECRET_ACCESS_KEY"], "aws_session_token": own["SECURITY_TOKEN"],
               "region_name": environ.get("S3_REGION") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
               or "us-east-1"}
    # OBS only accepts the bucket as a part of the host name, and does not support the checksums that newer boto3 adds.
    style = "virtual" if scheme == "obs" and not _is_plain_host(endpoint or "") else "auto"
    config = Config(retries={"max_attempts": ATTEMPTS, "mode": "standard"}, connect_timeout=CONNECT_S, read_timeout=READ_S,
                    max_pool_connections=4 * THREADS,
                    request_checksum_calculation="when_required", response_checksum_validation="when_required",
                    s3={"addressing_style": style})
    return {**{name: value for name, value in options.items() if value}, "config": config}


def _is_plain_host(endpoint: str) -> bool:
    """Return whether the endpoint is an IP address or a name without a domain, which a bucket's name cannot precede."""
    host = urlparse(endpoint).hostname or ""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return "." not in host


class MoxingStorage:
    """A prefix of a bucket, accessed through moxing, the library of ModelArts' images."""

    def __init__(self, address: str, key: str):
        import moxing

        self.file, self.address, self.key = moxing.file, address.rstrip("/"), key

    def _is_folder(self) -> bool:
        return self.file.is_directory(self.address)

    def list(self) -> Listing:
        with self._input_errors():
            if not self.file.exists(self.address):
                return {}
            if not self._is_folder():
                return {PurePosixPath(self.address).name: None}
            return {name: None for name in self.file.list_directory(self.address, recursive=True) if not name.endswith("/")}

    def size(self) -> None:
        return None

    def download(self, folder: Path) -> None:
        with self._input_errors():
            if self._is_folder():
                self.file.copy_parallel(self.address, str(folder))
            else:
                self.file.copy(self.address, str(folder / PurePosixPath(self.address).name))

    def check_writable(self) -> None:
        bucket = "/".join(self.address.split("/")[:3])
        with self._input_errors():
            if not self.file.exists(bucket):
                raise InputError(f"{self.key}: no such bucket: {bucket}")

    def upload(self, folder: Path, names: Sequence[str]) -> None:
        with self._input_errors():
            for name in names:
                self.file.copy(str(folder / name), f"{self.address}/{name}")

    @contextlib.contextmanager
    def _input_errors(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:     # moxing raises its own errors and those of the library below it
            raise InputError(f"{self.key}: {self.address}: {' '.join(str(error).split())}") from error
