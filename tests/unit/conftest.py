"""Fixtures of the unit tests."""
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path):
    """write(name, text) -> path of a new file, in a folder with a space in its name."""
    folder = tmp_path / "with space"
    folder.mkdir()

    def write_file(name, text):
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def message():
    """message(call, *arguments, **options) -> the one-line user error that the call must raise."""
    def call_and_catch(call, *arguments, **options):
        with pytest.raises(ValueError) as caught:
            call(*arguments, **options)
        assert caught.value.user_error
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return call_and_catch


@pytest.fixture(scope="session")
def rows():
    """Records of `files`; see tests/example_records.py."""
    from tests.example_records import make_rows

    return make_rows()


@pytest.fixture(scope="session")
def files(tmp_path_factory, rows):
    """Three MindRecord files in a folder with a space in its name."""
    from tests.example_records import write_records

    return write_records(tmp_path_factory.mktemp("mind record"), rows, shards=3)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A local server in place of the one with the published weights, and an empty cache."""
    from tests.http_files import serving

    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("faster_rcnn.src.model_utils.weights.download.PAUSE", 0.01)
    with serving() as running:
        monkeypatch.setenv("ZOO_WEIGHTS_URL", f"{running.url}/mirror/")
        yield running


@pytest.fixture
def copied(monkeypatch):
    """[options of each conversion]. The converter only copies the file and writes a YAML."""
    calls = []

    def run(options):
        calls.append(options)
        source, target = (Path(option.partition("=")[2]) for option in options)
        target.write_bytes(source.read_bytes())
        target.with_suffix(".yaml").write_text("epoch_size: 7\n")
        return 0, "converted"

    monkeypatch.setattr("faster_rcnn.src.model_utils.weights.cache.run_converter", run)
    return calls
