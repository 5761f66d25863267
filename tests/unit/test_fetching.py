"""What a job fetches and sends: S3 buckets, folders, moxing and zip files, hostile ones too, by one process at a time."""
import io
import json
import stat
import subprocess
import sys
import threading
import time
import zipfile

import pytest
from botocore.paginate import Paginator

from faster_rcnn.src.model_utils.cloud import fetching, object_storage
from faster_rcnn.src.model_utils.cloud.fetching import LOCK, MARK, fetch, fetched_root, unpack
from faster_rcnn.src.model_utils.cloud.object_storage import client_options, open_storage
from faster_rcnn.src.model_utils.turns import turn


def zip_of(members: dict) -> bytes:
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return stream.getvalue()


def tree(folder) -> dict:
    """Return {name: bytes} of the files below a folder, except those that fetching adds."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in (MARK, LOCK)}


def put(bucket, objects: dict):
    client, name = bucket
    for key, content in objects.items():
        client.put_object(Bucket=name, Key=key, Body=content)


def bring(address, folder, **options):
    fetch(str(address), folder, "data_url", "data_path", **options)


# ------------------------------------------------------------------------------------------------ buckets


def test_part_of_a_bucket_with_zip_files(bucket, tmp_path):
    put(bucket, {"sets/coco/": b"", "sets/coco/a/x.txt": b"x", "sets/coco/data.zip": zip_of({"val/1.png": b"1", "b.json": b"{}"}),
                 "sets/coco2/other.txt": b"o", "sets/coco": b"the folder's own name"})
    bring(f"s3://{bucket[1]}/sets/coco/", tmp_path / "data path")
    assert tree(tmp_path / "data path") == {"a/x.txt": b"x", "b.json": b"{}", "val/1.png": b"1", "coco": b"the folder's own name"}


def test_one_object(bucket, tmp_path):
    put(bucket, {"sets/data.ZIP": zip_of({"a.txt": b"a"}), "sets/data.ZIP.md5": b"no"})
    bring(f"s3://{bucket[1]}/sets/data.ZIP", tmp_path / "data")
    assert tree(tmp_path / "data") == {"a.txt": b"a"}


def test_many_objects_come_in_pages(bucket, tmp_path, monkeypatch):
    paginate = Paginator.paginate       # the default page has 1000 objects
    monkeypatch.setattr(Paginator, "paginate", lambda self, **options: paginate(self, PaginationConfig={"PageSize": 2}, **options))
    put(bucket, {f"set/{i}.txt": str(i).encode() for i in range(5)})
    bring(f"s3://{bucket[1]}/set", tmp_path / "data")
    assert tree(tmp_path / "data") == {f"{i}.txt": str(i).encode() for i in range(5)}


def test_fetched_once_and_again_if_changed(bucket, tmp_path):
    address, folder = f"s3://{bucket[1]}/set", tmp_path / "data"
    put(bucket, {"set/a.txt": b"a", "set/b.txt": b"b"})
    bring(address, folder)
    (folder / "a.txt").write_bytes(b"kept")
    bring(address, folder)
    assert tree(folder) == {"a.txt": b"kept", "b.txt": b"b"}
    bucket[0].delete_object(Bucket=bucket[1], Key="set/b.txt")
    bring(address, folder)
    assert tree(folder) == {"a.txt": b"a"}
    (folder / MARK).write_text("{}")        # as after a killed fetch
    (folder / "half").write_text("h")
    bring(address, folder)
    assert tree(folder) == {"a.txt": b"a"}


def test_faults_name_key_and_address(bucket, tmp_path, message, monkeypatch):
    put(bucket, {"up/../../x": b"x"})
    name = bucket[1]
    assert message(bring, f"s3://{name}/none", tmp_path / "d") == f"data_url: s3://{name}/none holds no files"
    assert message(bring, "s3://no-such-bucket/x", tmp_path / "e").startswith("data_url: s3://no-such-bucket/x: ")
    assert "which is not a file name" in message(bring, f"s3://{name}/up", tmp_path / "f")
    assert not (tmp_path / "x").exists()
    assert message(bring, "http://x/y", tmp_path / "d").startswith("data_url: expected s3://BUCKET/PATH, obs://BUCKET/PATH")
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert message(bring, "s3://a/b", tmp_path / "d") == (
        "data_url: s3://a/b needs boto3: pip install -r requirements.txt")


def test_full_disk_is_reported_before_fetching(bucket, tmp_path, message, monkeypatch):
    put(bucket, {"set/a.txt": b"a" * 1000})
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 999}))
    assert "has no room for" in message(bring, f"s3://{bucket[1]}/set", tmp_path / "d")


def test_upload(bucket, tmp_path, message):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "last.ckpt").write_bytes(b"w" * 9_000_000)      # uploaded in parts
    (tmp_path / "log.txt").write_text("log")
    storage = open_storage(f"s3://{bucket[1]}/runs/1/", "train_url")
    storage.check_writable()
    storage.upload(tmp_path, ["checkpoint/last.ckpt", "log.txt"])
    found = {item["Key"]: item["Size"] for item in bucket[0].list_objects_v2(Bucket=bucket[1])["Contents"]}
    assert found == {"runs/1/checkpoint/last.ckpt": 9_000_000, "runs/1/log.txt": 3}
    assert message(open_storage("s3://no-such-bucket/x", "train_url").check_writable).startswith("train_url: s3://no-such-bucket/x")


def test_environment_of_the_client(message):
    def options(scheme, **environ):
        found = client_options(scheme, environ, "data_url")
        config = found.pop("config")
        assert (config.request_checksum_calculation, config.response_checksum_validation) == ("when_required", "when_required")
        return found, config.s3["addressing_style"]

    assert options("s3") == ({"region_name": "us-east-1"}, "auto")
    assert options("s3", S3_ENDPOINT="minio.example.org:9000", S3_REGION="r1", OBS_ACCESS_KEY_ID="not this") == (
        {"region_name": "r1", "endpoint_url": "https://minio.example.org:9000"}, "auto")
    assert options("obs", OBS_ENDPOINT="obs.cn-north-4.myhuaweicloud.com", OBS_ACCESS_KEY_ID="k", OBS_SECRET_ACCESS_KEY="s",
                   OBS_SECURITY_TOKEN="t") == (
        {"region_name": "us-east-1", "endpoint_url": "https://obs.cn-north-4.myhuaweicloud.com", "aws_access_key_id": "k",
         "aws_secret_access_key": "s", "aws_session_token": "t"}, "virtual")
    assert options("obs", S3_ENDPOINT="http://127.0.0.1:1")[1] == "auto"
    assert message(client_options, "obs", {}, "data_url").startswith("data_url: OBS_ENDPOINT is not set")


# ------------------------------------------------------------------------------------------------ folders, moxing


def test_folder_without_zip_files_is_used_where_it_is(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_text("a")
    bring(tmp_path / "set", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert fetched_root(str(tmp_path / "set"), tmp_path / "data") == tmp_path / "set"


def test_folder_with_zip_files_is_copied(tmp_path, message):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.zip").write_bytes(zip_of({"a.txt": b"a"}))
    (tmp_path / "set" / "b.txt").write_text("b")
    bring(tmp_path / "set", tmp_path / "data")
    assert tree(tmp_path / "data") == {"a.txt": b"a", "b.txt": b"b"}
    assert fetched_root(str(tmp_path / "set"), tmp_path / "data") == tmp_path / "data"
    assert "set data_path to another folder" in message(bring, tmp_path / "set", tmp_path / "set")
    assert message(bring, tmp_path / "none", tmp_path / "d") == f"data_url: no such file or folder: {tmp_path / 'none'}"


def test_folder_that_holds_other_files_is_not_touched(tmp_path, message):
    (tmp_path / "data.zip").write_bytes(zip_of({"a.txt": b"a"}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("t")
    text = message(bring, tmp_path / "data.zip", tmp_path / "mine")
    assert text == f"data_path: {tmp_path / 'mine'} holds other files, such as thesis.txt; give a new or empty folder"
    assert tree(tmp_path / "mine") == {"thesis.txt": b"t"}


def test_results_to_a_folder(tmp_path, message):
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "x.txt").write_text("x")
    storage = open_storage(str(tmp_path / "results" / "1"), "train_url")
    storage.check_writable()
    storage.upload(tmp_path / "out", ["a/x.txt"])
    assert tree(tmp_path / "results") == {"1/a/x.txt": b"x"}
    open_storage(str(tmp_path / "out"), "train_url").upload(tmp_path / "out", ["a/x.txt"])
    assert tree(tmp_path / "out") == {"a/x.txt": b"x"}
    text = message(open_storage(str(tmp_path / "out" / "a" / "x.txt" / "y"), "train_url").check_writable)
    assert text.startswith("train_url: ") and "cannot be written" in text


MOXING = '''
import os, pathlib, shutil
class file:
    root = pathlib.Path(os.environ["MOXING_ROOT"])
    @classmethod
    def _path(cls, address):
        return cls.root / address.split("://")[1] if "://" in address else pathlib.Path(address)
    exists = classmethod(lambda cls, address: cls._path(address).exists())
    is_directory = classmethod(lambda cls, address: cls._path(address).is_dir())
    @classmethod
    def list_directory(cls, address, recursive=False):
        assert recursive
        root = cls._path(address)
        return [path.relative_to(root).as_posix() + "/" * path.is_dir() for path in sorted(root.rglob("*"))]
    @classmethod
    def copy_parallel(cls, source, target):
        shutil.copytree(cls._path(source), cls._path(target), dirs_exist_ok=True)
    @classmethod
    def copy(cls, source, target):
        if not cls._path(source).is_file():
            raise OSError("stand-in: no file\\nat all")
        cls._path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cls._path(source), cls._path(target))
'''


def test_moxing_where_it_is_installed(tmp_path, monkeypatch, message):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "moxing.py").write_text(MOXING)
    (tmp_path / "buckets" / "b" / "set" / "sub").mkdir(parents=True)
    (tmp_path / "buckets" / "b" / "set" / "sub" / "data.zip").write_bytes(zip_of({"a.txt": b"a"}))
    monkeypatch.setenv("MOXING_ROOT", str(tmp_path / "buckets"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "moxing", raising=False)
    try:
        bring("obs://b/set/", tmp_path / "data")
        bring("s3://b/set/sub/data.zip", tmp_path / "one")
        assert tree(tmp_path / "data") == {"sub/a.txt": b"a"}
        assert tree(tmp_path / "one") == {"a.txt": b"a"}
        assert message(bring, "obs://b/none", tmp_path / "d") == "data_url: obs://b/none holds no files"
        storage = open_storage("obs://b/out/", "train_url")
        assert isinstance(storage, object_storage.MoxingStorage)
        storage.check_writable()
        storage.upload(tmp_path / "data", ["sub/a.txt"])
        assert (tmp_path / "buckets" / "b" / "out" / "sub" / "a.txt").read_bytes() == b"a"
        assert message(storage.upload, tmp_path, ["none"]) == "train_url: obs://b/out: stand-in: no file at all"
        assert message(open_storage("obs://c/out", "train_url").check_writable) == "train_url: no such bucket: obs://c"
    finally:
        sys.modules.pop("moxing", None)


# ------------------------------------------------------------------------------------------------ several processes

FETCHER = """
import sys
sys.path.insert(0, {root!r})
from faster_rcnn.src.model_utils.cloud import fetching, object_storage
class Slow(object_storage.FolderStorage):
    def download(self, folder):
        import time
        with open({log!r}, "a") as file:
            file.write("fetched\\n")
        time.sleep(1.5)
        {fault}
        super().download(folder)
fetching.open_storage = lambda address, key: Slow(address, key)
try:
    fetching.fetch({source!r}, {target!r}, "data_url", "data_path")
except ValueError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("fault", ["", "raise fetching.InputError('data_url: gone')"])
def test_one_process_of_a_machine_fetches(tmp_path, repo_dir, fault):
    """If it fails, the waiting processes fail with it and do not fetch."""
    (tmp_path / "data.zip").write_bytes(zip_of({"a.txt": b"a"}))
    script = FETCHER.format(root=str(repo_dir), log=str(tmp_path / "log"), fault=fault, source=str(tmp_path / "data.zip"),
                            target=str(tmp_path / "data"))
    processes = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate(timeout=60)[1].strip() for process in processes]
    assert errors == (["data_url: gone"] * 3 if fault else [""] * 3)
    assert (tmp_path / "log").read_text() == "fetched\n"
    assert fault or tree(tmp_path / "data") == {"a.txt": b"a"}


def test_waiting_times_out(tmp_path, message):
    (tmp_path / "data.zip").write_bytes(zip_of({"a.txt": b"a"}))
    (tmp_path / "data").mkdir()
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with turn(tmp_path / "data" / LOCK, 1):
            inside.set()
            leave.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(30)
    try:
        start = time.monotonic()
        text = message(bring, tmp_path / "data.zip", tmp_path / "data", wait_seconds=0.3)
        assert "another process has been fetching for 0.005 minutes" in text
        assert time.monotonic() - start < 5
    finally:
        leave.set()
        holder.join()
    bring(tmp_path / "data.zip", tmp_path / "data")


# ------------------------------------------------------------------------------------------------ zip files


def member(name, mode=0o644 | stat.S_IFREG):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize("info, expected", [
    (member("../out.txt"), "'../out.txt' would be written outside the folder"),
    (member("a/../../out.txt"), "would be written outside the folder"),
    (member("..\\out.txt"), "would be written outside the folder"),
    (member("/tmp/out.txt"), "would be written outside the folder"),
    (member("C:/out.txt"), "would be written outside the folder"),
    (member(f"a/{MARK}"), "would be written outside the folder"),
    (member("link", stat.S_IFLNK | 0o777), "'link' is a link or a device"),
    (member("pipe", stat.S_IFIFO | 0o644), "'pipe' is a link or a device"),
    (member("there.txt"), "there.txt already exists")])
def test_hostile_members(tmp_path, message, info, expected):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "there.txt").write_text("t")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(info, b"/etc/passwd")
    text = message(unpack, tmp_path / "bad.zip", folder, "data_url")
    assert text.startswith("data_url: bad.zip: ") and expected in text
    assert tree(tmp_path) == {"bad.zip": (tmp_path / "bad.zip").read_bytes(), "data/there.txt": b"t"}
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


def test_more_than_declared(tmp_path, message):
    """Both headers of a 20 MB member declare 10 bytes."""
    content = zip_of({"a.bin": bytes(20_000_000)})
    size = (20_000_000).to_bytes(4, "little")
    assert content.count(size) == 2
    (tmp_path / "liar.zip").write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    assert message(unpack, tmp_path / "liar.zip", tmp_path, "data_url").startswith("data_url: liar.zip: ")
    assert (tmp_path / "a.bin").stat().st_size <= 10


def test_bombs(tmp_path, message, monkeypatch):
    monkeypatch.setattr(fetching, "UNPACKED_BYTES", 1000)
    (tmp_path / "bomb.zip").write_bytes(zip_of({f"{i}.bin": bytes(1_000_000) for i in range(5)}))
    assert "MB would unpack to" in message(unpack, tmp_path / "bomb.zip", tmp_path, "data_url")
    (tmp_path / "fine.zip").write_bytes(zip_of({"a.json": json.dumps(list(range(300)))}))
    unpack(tmp_path / "fine.zip", tmp_path, "data_url")
    assert json.loads((tmp_path / "a.json").read_text()) == list(range(300))


def test_broken_files(tmp_path, message):
    content = zip_of({"a.txt": b"hello" * 1000})
    middle = bytearray(content)
    middle[40] ^= 0xFF
    for name, data in (("text.zip", b"no zip"), ("cut.zip", content[:50]), ("flip.zip", bytes(middle))):
        (tmp_path / name).write_bytes(data)
        text = message(unpack, tmp_path / name, tmp_path, "data_url")
        assert text.startswith(f"data_url: {name}: damaged, incomplete or unsupported zip file: ")
