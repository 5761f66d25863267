"""ModelArts jobs: paths of the configuration in the fetched folders, uploaded files, and exit status."""
import pytest

from faster_rcnn.src.model_utils import moxing_adapter
from faster_rcnn.src.model_utils.config import load_config
from faster_rcnn.src.model_utils.device_adapter import Launch
from faster_rcnn.src.model_utils.moxing_adapter import CHILD, as_job, localize, result_files
from refinedet.src.model_utils import config as refinedet_config
from refinedet.src.model_utils import moxing_adapter as refinedet_adapter


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


@pytest.fixture
def located(tmp_path):
    """located(weights, **keys) -> {key: text} that `localize` returns, with paths relative to tmp_path."""
    def build(weights="pre_trained", load=load_config, adapter=localize, **keys):
        config = load(overrides={
            "enable_modelarts": True, "data_url": "s3://b/data", "checkpoint_url": "s3://b/weights", "output_path": "/out",
            "data_path": str(tmp_path / "data"), "load_path": str(tmp_path / "weights"), **keys})
        found = adapter(config, weights).to_dict()
        assert {key for key in found if found[key] != config.to_dict()[key]} <= {
            *moxing_adapter.DATA_KEYS, *moxing_adapter.WEIGHT_KEYS, "file_name"}
        return {key: value.replace(str(tmp_path), "") for key, value in found.items() if isinstance(value, str)}

    return build


def test_relative_paths(located, tmp_path):
    touch(tmp_path / "data", "coco/annotations/x.json", "records/manifest.json", "train")
    touch(tmp_path / "weights", "resnet/a.ckpt", "b.ckpt", "checkpoint/state.ckpt")
    found = located(coco_root="coco", mindrecord_dir="records", anno_path="coco/annotations/x.json", val_anno_path="elsewhere.json",
                    pre_trained="resnet/a.ckpt", checkpoint_path="./faster_rcnn/b.ckpt", resume="checkpoint", file_name="net")
    assert [found[key] for key in ("coco_root", "mindrecord_dir", "anno_path", "val_anno_path", "image_set")] == [
        "/data/coco", "/data/records", "/data/coco/annotations/x.json", "elsewhere.json", ""]
    assert [found[key] for key in ("pre_trained", "checkpoint_path", "resume", "file_name")] == [
        "/weights/resnet/a.ckpt", "/weights/b.ckpt", "/weights/checkpoint", "/out/net"]


def test_absolute_paths_below_data_path(located, tmp_path):
    """Paths below data_path move to a mounted folder that replaces the copy."""
    touch(tmp_path / "mounted", "coco/a.json")
    touch(tmp_path / "weights", "model.ckpt")
    found = located(data_url=str(tmp_path / "mounted"), coco_root=str(tmp_path / "data" / "coco"), image_dir="/pictures",
                    ckpt_file=str(tmp_path / "weights" / "model.ckpt"), weights="ckpt_file")
    assert (found["coco_root"], found["image_dir"], found["ckpt_file"]) == ("/mounted/coco", "/pictures", "/weights/model.ckpt")


@pytest.mark.parametrize("inside", ["", "coco/", "a/b/"])
def test_the_data_set_is_found(located, tmp_path, message, inside):
    touch(tmp_path / "data", f"{inside}annotations/instances_val2017.json")
    touch(tmp_path / "weights", "sub/only.ckpt", "notes.txt")
    found = located()
    assert found["coco_root"] == f"/data/{inside}".rstrip("/")
    assert found["pre_trained"] == "/weights/sub/only.ckpt"
    assert located(image_dir="pictures")["coco_root"] == ""
    assert located(resume="auto")["pre_trained"] == ""
    assert located("checkpoint_path", onnx_path="net.onnx")["checkpoint_path"] == ""
    assert located("checkpoint_path")["checkpoint_path"] == "/weights/sub/only.ckpt"
    assert located(val_data_type="mine")["coco_root"] == ""
    touch(tmp_path / "data", "second/annotations/instances_train2017.json")
    assert message(located).startswith("coco_root: data_url holds several data sets: ")


def test_voc_is_found(located, tmp_path):
    touch(tmp_path / "data", "VOC2012/JPEGImages/a.jpg", "VOC2012/Annotations/a.xml")
    touch(tmp_path / "weights", "vgg.ckpt")
    found = located(load=refinedet_config.load_config, adapter=refinedet_adapter.localize, dataset="voc")
    assert found["voc_root"] == "/data/VOC2012"
    assert located(dataset="voc")["coco_root"] == ""


def test_choice_of_weights(located, tmp_path, message):
    (tmp_path / "weights").mkdir()
    assert message(located, "ckpt_file") == ("ckpt_file: checkpoint_url s3://b/weights holds no .ckpt file; set --ckpt_file to "
                                             "the name of one file")
    touch(tmp_path / "weights", "last.ckpt", "best.ckpt")
    assert "holds best.ckpt, last.ckpt; set --pre_trained" in message(located)
    assert located(pre_trained="best.ckpt")["pre_trained"] == "/weights/best.ckpt"


def test_without_modelarts_the_configuration_is_unchanged(monkeypatch):
    monkeypatch.setenv("MA_NUM_GPUS", "no number")
    config = load_config(overrides={"data_url": "s3://no/where", "coco_root": "coco"})
    assert as_job(config, "pre_trained", data=True) is config


def test_commands_of_a_job_fetch_nothing(monkeypatch):
    monkeypatch.setenv(CHILD, "1")
    config = load_config(overrides={"enable_modelarts": True, "data_url": "s3://no/where", "file_name": "/tmp/net"})
    assert as_job(config, "pre_trained", data=True) == config


def test_uploaded_files(tmp_path):
    touch(tmp_path, "config.yaml", "checkpoint/a.ckpt", "checkpoint/last.123.partial.ckpt", "loss_0.log", "loss_1.log",
          "loss_11.log", "mindrecord/train/x", "msrun_log/worker_1.log", "earlier/1/mindrecord/x")
    all_of_it = ["checkpoint/a.ckpt", "config.yaml", "earlier/1/mindrecord/x", "loss_0.log", "loss_1.log", "loss_11.log",
                 "msrun_log/worker_1.log"]
    assert sorted(result_files(tmp_path, Launch())) == all_of_it
    assert sorted(result_files(tmp_path, Launch(0, 8))) == all_of_it
    assert sorted(result_files(tmp_path, Launch(8, 16, msrun=("--worker_num=16",)))) == all_of_it
    assert sorted(result_files(tmp_path, Launch(1, 8))) == ["loss_1.log", "msrun_log/worker_1.log"]
    assert result_files(tmp_path / "none", Launch()) == []


@pytest.mark.parametrize(("status", "fails", "expected"), [(0, False, 0), (7, False, 7), (0, True, 1), (7, True, 7), (2, None, 2)])
def test_status(tmp_path, capsys, status, fails, expected):
    class Results:
        def upload(self, folder, names):
            if fails:
                raise moxing_adapter.InputError("train_url: full")

    touch(tmp_path, "a.txt")
    assert moxing_adapter._send(None if fails is None else Results(), Launch(), tmp_path, status) == expected
    assert capsys.readouterr().err.endswith(": error: train_url: full\n") == bool(fails)
