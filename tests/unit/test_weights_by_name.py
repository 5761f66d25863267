"""Weights by name: the table and its documentation, what is a name and what a path, and what the commands make of it."""
import importlib
from pathlib import Path

import pytest

import faster_rcnn
from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.weights import cache
from faster_rcnn.src.model_utils.weights.cache import converted_file
from faster_rcnn.src.model_utils.weights.named import check_pretrained, is_name, pretrained_file, weights_arguments, weights_file
from faster_rcnn.src.model_utils.weights.published import listing, own_weights, read_table
from tests import weights_docs

MODELS = ("faster_rcnn", "mask_rcnn", "refinedet")


# The table

@pytest.mark.parametrize("model", MODELS)
def test_every_row_names_keys_of_the_model(model):
    load = importlib.import_module(f"{model}.src.model_utils.config").load_config
    for name, entry in read_table().items():
        assert is_name(name) and entry.url.startswith("https://") and entry.accuracy or not entry.top1
        if model in entry.models:
            config = load(overrides=entry.models[model])
            for key, value in entry.models[model].items():
                assert config[key] == (tuple(value) if isinstance(value, list) else value), name


def test_figures_of_the_sources():
    """From torchvision's faster_rcnn.py and vgg.py, detectron2's MODEL_ZOO.md, mmdetection's metafile.yml, mindcv's README."""
    table = read_table()
    checks = {name: (entry.digest, entry.digits, entry.size, entry.box_ap or entry.top1, entry.mask_ap)
              for name, entry in table.items()}
    assert checks["fasterrcnn_resnet50_fpn_coco"] == ("sha256", "258fb6c6", 159.743, 37.0, None)
    assert checks["vgg16"] == ("sha256", "397923af", 527.796, 71.592, None)
    assert checks["mask_rcnn_R_101_FPN_3x"] == ("md5", "a3ec72", None, 42.9, 38.6)
    assert checks["mask-rcnn_r50_fpn_2x_coco"] == ("sha256", "3e542a40", None, 39.2, 35.4)
    assert checks["R-50"] == ("", "", None, None, None)
    assert checks["resnet50_mindcv"] == ("", "", None, 76.69, None)
    assert all(len(entry.digits) == {"sha256": 8, "md5": 6, "": 0}[entry.digest] for entry in table.values())
    unchecked = {name for name, entry in table.items() if not entry.digits}
    assert unchecked == {"R-50", "R-101", "resnet50_mindcv"}
    files = [entry.file for entry in table.values()]
    assert len(files) == len(set(files))


@pytest.mark.parametrize("file", weights_docs.WORDS)
def test_the_documentation_holds_the_table(file):
    text = (weights_docs.DOCS / file).read_text(encoding="utf-8")
    assert weights_docs.with_tables(text, file) == text, "run python -m tests.weights_docs"
    assert all(f"| `{name}` |" in text and entry.url in text for name, entry in read_table().items())


def test_the_list_is_of_the_model(capsys):
    for model in MODELS:
        main = importlib.import_module(f"{model}.src.convert_checkpoint").main
        with pytest.raises(SystemExit) as ended:
            main(["--list"])
        shown = capsys.readouterr().out
        assert ended.value.code == 0
        for name, entry in read_table().items():
            assert (f"\n{name}\n" in shown and f"  {entry.url}\n" in shown) == (model in entry.models), (model, name)
    assert "top-1 76.13; 97.8 MiB; SHA-256 0676ba61...;" in listing()


# Names and paths

def test_a_path_comes_before_a_name(mirror, tmp_path, monkeypatch, message, copied):
    monkeypatch.chdir(tmp_path)
    for path in ("resnet50.ckpt", "weights/resnet50", "./resnet50", tmp_path / "resnet50", "~/resnet50.pth",
                 "demo_config_cpu.yaml"):
        assert weights_file(path, "weights") == Path(path).expanduser()
    (tmp_path / "resnet50").write_bytes(b"mine")
    assert weights_file("resnet50", "weights") == Path("resnet50") and pretrained_file(load_config(overrides={
        "pre_trained": "resnet50"})) == Path("resnet50")
    check_pretrained(load_config(overrides={"pre_trained": "resnet50"}))
    assert mirror.requests == [] and copied == []
    told = message(weights_file, "fasterrcn_resnet50_fpn", "weights")
    assert told == ("weights: fasterrcn_resnet50_fpn: no such file, and no published weights of this name, did you mean "
                    "fasterrcnn_resnet50_fpn_coco?; python -m src.convert_checkpoint --list lists all")
    assert "of this name: those are weights for mask_rcnn; python" in message(weights_file, "maskrcnn_resnet50_fpn_coco", "weights")
    told = message(check_pretrained, load_config(overrides={"pre_trained": "absent.ckpt"}))
    assert told == "pre_trained: no such file: absent.ckpt"


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZOO_WEIGHTS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.cache_folder() == tmp_path / ".cache" / "mindspore_detection_zoo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "mindspore_detection_zoo"
    monkeypatch.setenv("ZOO_WEIGHTS", "~/own")
    assert cache.cache_folder() == tmp_path / "own"


def test_weights_for_another_backbone_are_refused_and_other_keys_are_named(mirror, copied, message, caplog):
    mirror.files["R-101.pkl"] = b"r101"
    config = load_config(overrides={"pre_trained": "R-101"})
    assert message(check_pretrained, config) == "pre_trained: R-101 needs --backbone=resnet_v1_101, got resnet_v1.5_50"
    assert mirror.requests == []
    check_pretrained(load_config(overrides={"pre_trained": "R-101", "backbone": "resnet_v1_101"}))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "pre_trained: R-101 was trained with --convention=detectron2"]


def test_a_command_line_with_a_name(mirror, copied, tmp_path, monkeypatch, message):
    """The name becomes the file, and its configuration is the one beside it unless another one is given."""
    monkeypatch.setitem(read_table(), "narrow", read_table()["R-50"]._replace(name="narrow", box_ap=1.0))
    mirror.files["R-50.pkl"] = b"r50"
    place = converted_file(own_weights()["narrow"])
    config = f"--config_path={place.with_suffix('.yaml')}"
    assert weights_arguments(["--checkpoint_path=narrow", "--draw=False"], "checkpoint_path") == [
        f"--checkpoint_path={place}", "--draw=False", config]
    assert weights_arguments(["--checkpoint_path", "narrow"], "checkpoint_path") == ["--checkpoint_path", str(place), config]
    given = ["--config_path", "mine.yaml", "--checkpoint_path=narrow"]
    assert weights_arguments(given, "checkpoint_path") == [*given[:2], f"--checkpoint_path={place}"]
    for untouched in (["--checkpoint_path=best.ckpt"], ["--ckpt_file=narrow"], ["--checkpoint_path"], []):
        assert weights_arguments(untouched, "checkpoint_path") == untouched
    assert message(weights_arguments, ["--checkpoint_path=R-101"], "checkpoint_path") == (
        "checkpoint_path: R-101 is a backbone, expected a detector; to train from it, set pre_trained=R-101")
    assert message(faster_rcnn.Detector, "R-101") == (
        "weights: R-101 is a backbone, expected a detector; to train from it, set pre_trained=R-101")
    assert len(mirror.requests) == 1


def test_a_command_line_with_a_file_takes_the_configuration_beside_it(tmp_path):
    """That of its run, of a conversion or of an export; a file without one, and one with --config_path, stay as they are."""
    best, alone, exported = tmp_path / "run" / "checkpoint" / "best.ckpt", tmp_path / "a" / "alone.ckpt", tmp_path / "net.onnx"
    for path in (best, alone, exported, tmp_path / "run" / "config.yaml", tmp_path / "net.onnx.yaml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run = f"--config_path={tmp_path / 'run' / 'config.yaml'}"
    assert weights_arguments([f"--checkpoint_path={best}"], "checkpoint_path") == [f"--checkpoint_path={best}", run]
    assert weights_arguments(["--ckpt_file", str(best)], "ckpt_file") == ["--ckpt_file", str(best), run]
    assert weights_arguments([f"--onnx_path={exported}"], "checkpoint_path")[1:] == [f"--config_path={tmp_path / 'net.onnx.yaml'}"]
    for words in ([f"--checkpoint_path={alone}"], [f"--checkpoint_path={best}", "--config_path=x.yaml"], [f"--pre_trained={best}"]):
        assert weights_arguments(words, "checkpoint_path") == words


def test_the_commands_know_names(run_command, repo_dir, tmp_path):
    """A name that there is not, and one that cannot be fetched: one line and status 2, before MindSpore is imported."""
    environment = {"ZOO_WEIGHTS": str(tmp_path), "ZOO_WEIGHTS_URL": "http://127.0.0.1:9", "http_proxy": None, "HTTP_PROXY": None}
    for command, told in (
            (["train.py", "--coco_root=/tmp", "--pre_trained=resnet5O"], "did you mean resnet50?"),
            (["infer.py", "--checkpoint_path=faster_rcnn_R_50_FPN_3", "--input=/tmp"], "did you mean faster_rcnn_R_50_FPN_3x?"),
            (["export.py", "--ckpt_file=maskrcnn_resnet50_fpn_coco"], "those are weights for mask_rcnn")):
        done = run_command(["python", repo_dir / "faster_rcnn" / command[0], *command[1:]], cwd=tmp_path, env=environment)
        assert done.returncode == 2 and told in done.stderr and done.stderr.count("\n") == 1, done.stderr
