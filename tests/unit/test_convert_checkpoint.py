"""Conversion of an ImageNet ResNet: names are mapped, wrong networks are refused, missing layers are reported."""
import json
import re

import mindspore as ms
import numpy as np
import pytest

from faster_rcnn.src import convert_checkpoint
from faster_rcnn.src.FasterRcnn.resnet import ResNet
from faster_rcnn.src.model_utils.config import InputError
from faster_rcnn.src.model_utils.weights.reader import read_checkpoint
from faster_rcnn.src.model_utils.weights.resnet_names import BLOCKS, PARAMETERS, cell_shapes, convert_resnet, translate
from tests.checkpoint_files import ordered, storage, tensor, write_stream, write_zip

R50 = "resnet_v1.5_50"
CELLS = cell_shapes(BLOCKS[R50])
TORCH = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
DOWNSAMPLE = {"torchvision": "downsample.{}", "data parallel": "downsample.{}",
              "MindSpore ResNet": "down_sample_layer.{}", "mindcv": "down_sample.{}"}
STYLES = (*DOWNSAMPLE, "old zoo")


def name_in(style: str, cell: str, parameter: str) -> str:
    """Return the framework's name of our parameter, as its sources spell it."""
    place, last = cell.rpartition(".")[::2]
    place += "." if place else ""
    conv = parameter == "weight"
    if last == "downsample":
        old = "conv_down_sample" if conv else "bn_down_sample"
        last = DOWNSAMPLE.get(style, old).format(0 if conv else 1)
    elif not conv:
        last = last.replace("conv", "bn")
    if not conv and style in ("torchvision", "data parallel"):
        parameter = TORCH[parameter]
    return {"old zoo": "backbone.", "data parallel": "module."}.get(style, "") + f"{place}{last}.{parameter}"


def weights(style="torchvision", cells=CELLS, dtype=np.float32) -> dict:
    """Return arrays under the framework's names, each filled with a different value."""
    arrays = {}
    for cell in cells:
        for parameter in PARAMETERS:
            shape = CELLS[cell] if parameter == "weight" else CELLS[cell][:1]
            arrays[name_in(style, cell, parameter)] = np.full(shape, len(arrays), dtype)
    return arrays


def some(*cells, **options) -> dict:
    return weights(cells=cells or ("conv1", "layer1.0.conv1", "layer1.0.downsample"), **options)


def test_shapes_of_resnet50():
    assert len(CELLS) == 53
    assert CELLS["conv1"] == (64, 3, 7, 7) and CELLS["layer1.0.downsample"] == (256, 64, 1, 1)
    assert CELLS["layer2.0.conv1"] == (128, 256, 1, 1) and CELLS["layer4.2.conv3"] == (2048, 512, 1, 1)
    count = sum(np.prod(shape) + 4 * shape[0] for shape in CELLS.values())
    assert count == 25_557_032 - 2_049_000 + 53_120  # torchvision's count without fc, plus the running statistics


def test_names_and_shapes_are_those_of_the_network():
    network = ResNet(BLOCKS[R50], (64, 256, 512, 1024), (256, 512, 1024, 2048))
    parameters = {name: parameter.shape for name, parameter in network.parameters_and_names()}
    assert parameters == {f"{cell}.{parameter}": CELLS[cell] if parameter == "weight" else CELLS[cell][:1]
                          for cell in CELLS for parameter in PARAMETERS}


@pytest.mark.parametrize("theirs, ours", [
    ("conv1.weight", ("conv1", "weight")), ("bn1.running_var", ("conv1", "moving_variance")),
    ("layer3.5.bn2.bias", ("layer3.5.conv2", "beta")),
    ("layer4.0.downsample.1.weight", ("layer4.0.downsample", "gamma")),
    ("layer4.0.down_sample_layer.1.moving_mean", ("layer4.0.downsample", "moving_mean")),
    ("backbone.layer4.0.conv_down_sample.weight", ("layer4.0.downsample", "weight")),
    ("module.layer1.0.conv3.weight", ("layer1.0.conv3", "weight")),
    *((name, None) for name in (
        "conv2.weight", "layer5.0.conv1.weight", "layer1.0.conv4.weight", "layer1.0.conv1.bias", "fc.weight",
        "layer1.1.downsample.0.weight", "layer1.0.downsample.2.weight", "layer1.0.bn1.num_batches_tracked",
        "encoder.conv1.weight", "layer1.0.conv1.gamma"))])
def test_translate(theirs, ours):
    assert translate(theirs) == ours


@pytest.mark.parametrize("style", STYLES)
def test_every_name_is_mapped(style):
    conversion = convert_resnet(weights(style, dtype=np.float16), R50, "file")
    assert conversion.missing == [] and conversion.left_out == {} and conversion.depth == "ResNet-50"
    names = [f"backbone.{cell}.{parameter}" for cell in CELLS for parameter in PARAMETERS]
    assert list(conversion.tensors) == names
    for number, name in enumerate(names):
        value = conversion.tensors[name]
        assert value.dtype == np.float32 and value.flags.owndata and (value == number).all()
        assert value.shape == (CELLS[name[9:-7]] if name.endswith(".weight") else value.shape[:1])


def test_incomplete_cells_are_left_out():
    arrays = some("conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.0.conv3", "layer2.0.conv1")
    del arrays["layer1.0.conv1.weight"], arrays["layer1.0.bn3.running_var"]
    conversion = convert_resnet(arrays, R50, "file")
    assert sorted({name.rpartition(".")[0] for name in conversion.tensors}) == [
        "backbone.conv1", "backbone.layer1.0.conv2", "backbone.layer2.0.conv1"]
    without_conv, without_norm = conversion.left_out.values()
    assert without_conv == [f"layer1.0.bn1.{leaf}" for leaf in TORCH.values()]
    assert without_norm == ["layer1.0.conv3.weight", *(f"layer1.0.bn3.{leaf}" for leaf in TORCH.values())][:-1]
    order = list(CELLS)
    assert [cells[0] for cells in conversion.missing] == ["layer1.0.conv1", "layer1.0.conv3", "layer2.0.conv2"]
    assert conversion.missing[1] == order[order.index("layer1.0.conv3"):order.index("layer2.0.conv1")]
    assert sum(map(len, conversion.missing)) == 53 - 3


def test_left_out_tensors_are_grouped_by_reason():
    extra = {"fc.weight": "classifier", "end_point.bias": "classifier", "classifier.weight": "classifier",
             "bn1.num_batches_tracked": "batches", "moments.layer1.0.conv1.weight": "optimiser",
             "global_step": "optimiser", "accum.conv1.weight": "optimiser", "layer1.0.se.weight": "unknown",
             "conv1.bias": "unknown"}
    conversion = convert_resnet({**some(), **{name: np.zeros(1, np.float32) for name in extra}}, R50, "file")
    found = {name: reason for reason, names in conversion.left_out.items() for name in names}
    assert set(found) == set(extra) and all(word in found[name] for name, word in extra.items())


def changed(name, value):
    return {**some(), name: value}


def with_blocks(*counts):
    return {f"layer{stage}.{count - 1}.bn3.bias": np.zeros(1) for stage, count in enumerate(counts, start=1)}


@pytest.mark.parametrize("arrays, expected", [
    (changed("conv1.weight", np.zeros((8, 3, 7, 7))),
     r"1 of 15 tensors do not fit .*: conv1.weight is \(8, 3, 7, 7\), expected \(64, 3, 7, 7\)$"),
    (changed("bn1.bias", np.zeros(32)), r"bn1.bias is \(32,\), expected \(64,\)"),
    (changed("bn1.bias", np.zeros((64, 1))), r"bn1.bias is \(64, 1\)"),
    (changed("bn1.bias", np.zeros(64, np.int8)), "bn1.bias holds int8"),
    (changed("bn1.bias", np.full(64, np.nan)), "bn1.bias holds values that are not finite"),
    (changed("bn1.bias", np.full(64, 1e60)), "bn1.bias holds values that are not finite"),
    (changed("bn1.running_var", np.full(64, -1e-3)), "bn1.running_var holds negative variances"),
    (changed("backbone.conv1.weight", np.zeros((64, 3, 7, 7))),
     "backbone.conv1.weight and conv1.weight both convert to conv1's weight"),
    (changed("layer3.22.bn3.bias", np.zeros(1024)), r"holds a ResNet \(blocks 1, 0, 23, 0\), but "
     r"resnet_v1.5_50 is a ResNet-50 \(blocks 3, 4, 6, 3\)$"),
    (with_blocks(3, 4, 23, 3), "holds a ResNet-101"),
    (with_blocks(3, 8, 36, 3), "holds a ResNet-152"),
    ({"layer1.0.conv1.weight": np.zeros(1), "layer1.0.conv2.weight": np.zeros(1)}, "ResNet-18 or ResNet-34"),
])
def test_weights_that_do_not_fit(arrays, expected):
    with pytest.raises(InputError) as caught:
        convert_resnet(arrays, R50, "some file.pth")
    assert re.match("some file.pth: .*" + expected, str(caught.value)), caught.value


def test_first_of_many_that_do_not_fit_are_named():
    wide = {name: np.broadcast_to(array.flat[0], [2 * n for n in array.shape]) for name, array in weights().items()}
    with pytest.raises(InputError) as caught:
        convert_resnet(wide, R50, "file")
    assert str(caught.value).startswith("file: 265 of 265 tensors do not fit resnet_v1.5_50: conv1.weight is (128, 6,")
    assert str(caught.value).count(", expected ") == 3


# --- the command ---

def write_torch(container, path, arrays):
    """Write `arrays` as a state dict, one storage per array."""
    stream = container == "stream"
    tree, blocks = {}, {}
    for number, (key, array) in enumerate(arrays.items()):
        block = storage("FloatStorage", str(number), array.size, *([None] if stream else []))
        strides = tuple(step // array.itemsize for step in array.strides)
        tree[key] = tensor(block, 0, array.shape, strides)
        blocks[str(number)] = (array.size, array.tobytes()) if stream else array.tobytes()
    return (write_stream if stream else write_zip)(path, ordered(tree), blocks)


def random_weights(**options) -> dict:
    rng = np.random.default_rng(0)
    return {name: rng.random(array.shape, np.float32) for name, array in some(**options).items()}


def assert_converted(path, arrays, style="torchvision"):
    """Assert that the checkpoint at `path` holds the parameters of `some()` with the values of `arrays`."""
    loaded = ms.load_checkpoint(str(path))
    assert len(loaded) == 15
    for name, value in loaded.items():
        cell, _, parameter = name.removeprefix("backbone.").rpartition(".")
        np.testing.assert_array_equal(value.asnumpy(), arrays[name_in(style, cell, parameter)], strict=True)


@pytest.mark.parametrize("container", ["zip", "stream", "npz", "MindSpore"])
def test_convert_each_container(container, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    style = "MindSpore ResNet" if container == "MindSpore" else "torchvision"
    arrays = random_weights(style=style)
    if container == "npz":
        np.savez("my resnet.npz", **arrays)
        source = "my resnet.npz"
    elif container == "MindSpore":
        source = "my resnet.ckpt"
        state = {"moments.conv1.weight": np.zeros(3, np.float32), "end_point.bias": np.zeros(5, np.float32)}
        parameters = [{"name": name, "data": ms.Tensor(value)} for name, value in {**arrays, **state}.items()]
        ms.save_checkpoint(parameters, source, append_dict={"epoch_num": 90, "note": "text"})
    else:
        source = write_torch(container, tmp_path / "my resnet.pth", arrays)
    assert convert_checkpoint.main([f"--ckpt_file={source}"]) == 0
    assert_converted(tmp_path / "backbone_my resnet.ckpt", arrays, style)
    out, err = capsys.readouterr()
    assert "used: 15 tensors (3 convolutions with norms)" in out
    assert "missing: layer1.0.conv2 ... layer1.0.conv3 (2 convolutions): will be initialised" in out
    assert "missing: layer1.1.conv1 ... layer4.2.conv3 (48 convolutions): will be initialised" in out
    assert "RGB / 255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225" in out
    assert f"warning: {source}: an incomplete backbone: it lacks 50 convolutions" in err and err.count("\n") == 1
    if container == "MindSpore":
        assert "1 tensor of the classifier (end_point.bias)" in out and "entries that are not tensors (note)" in out
        assert "2 tensors of the optimiser and the training state (moments.conv1.weight, epoch_num)" in out


def test_bfloat16_checkpoint_of_mindspore(tmp_path):
    value = ms.Tensor(np.array([1, -2.5], np.float32)).astype(ms.bfloat16)
    ms.save_checkpoint([{"name": "x", "data": value}], str(tmp_path / "x.ckpt"))
    array = read_checkpoint(tmp_path / "x.ckpt").arrays["x"]
    np.testing.assert_array_equal(array, np.array([1, -2.5], np.float32), strict=True)


@pytest.mark.parametrize("content", [b"\n\x05hello", b"\n" + bytes(50), b"text"])
def test_damaged_checkpoint_of_mindspore(content, tmp_path):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(InputError, match="x.ckpt: not a MindSpore checkpoint, or a damaged one$"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_blocks_of_another_network_are_warned_of(tmp_path, capsys):
    squeeze = {"layer1.0.se.fc1.weight": np.zeros((2, 2), np.float32)}
    source = write_torch("zip", tmp_path / "m.pth", {**random_weights(), **squeeze})
    assert convert_checkpoint.main([f"--ckpt_file={source}", f"--output_file={tmp_path / 'o.ckpt'}"]) == 0
    assert "its blocks hold 1 tensor more than a ResNet's (layer1.0.se.fc1.weight)" in capsys.readouterr().err


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    source = write_torch("zip", tmp_path / "m.pth", random_weights())
    output = tmp_path / "o.ckpt"
    output.write_text("of an earlier run")

    def fails(parameters, path, **_):
        with open(path, "wb") as file:
            file.write(b"half")
        raise RuntimeError("no space left on device\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(ms, "save_checkpoint", fails)
        with pytest.raises(InputError, match="o.ckpt cannot be written: no space left on device$"):
            convert_checkpoint.main([f"--ckpt_file={source}", f"--output_file={output}"])
    assert output.read_text() == "of an earlier run" and len(list(tmp_path.iterdir())) == 2
    assert convert_checkpoint.main([f"--ckpt_file={source}", f"--output_file={output}"]) == 0
    assert len(ms.load_checkpoint(str(output))) == 15 and len(list(tmp_path.iterdir())) == 2


def test_nothing_used_is_status_1(tmp_path, capsys):
    source = write_torch("zip", tmp_path / "m.pth", {"features.0.weight": np.zeros((2, 2), np.float32)})
    output = tmp_path / "o.ckpt"
    assert convert_checkpoint.main([f"--ckpt_file={source}", "--source=resnet", f"--output_file={output}"]) == 1
    out, err = capsys.readouterr()
    assert "used: 0 tensors" in out and "pixels" not in out and "holds nothing usable" in err
    assert not output.exists()


@pytest.mark.parametrize("options, expected", [
    ([], "--ckpt_file"), (["--ckpt_file=absent.pth"], "absent.pth: no such file"),
    (["--ckpt_file=m.npz", "--source=keras"], "'keras'"), (["--ckpt_file=m.npz", "--backbone=vgg"], "'vgg'"),
    (["--ckpt_file=m.npz", "--unknown=1"], "--unknown"),
    (["--ckpt_file=m.npz", "--output_file=o.pth"], "must end with .ckpt"),
    (["--ckpt_file=m.npz", "--output_file=absent/o.ckpt"], "no such folder: absent"),
    (["--ckpt_file=m.npz", "--output_file=folder.ckpt"], "is a folder"),
    (["--ckpt_file=own.ckpt", "--output_file=own.ckpt"], "is the file to convert")])
def test_faults_of_the_command_line(options, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("m.npz", x=np.zeros(1))
    (tmp_path / "folder.ckpt").mkdir()
    (tmp_path / "own.ckpt").touch()
    with pytest.raises(InputError, match=re.escape(expected)):
        convert_checkpoint.main(options)


def test_run_as_a_module_and_as_a_file(tmp_path, repo_dir, run_command):
    folder = tmp_path / "a b"
    folder.mkdir()
    arrays = random_weights()
    np.savez(folder / "r 50.npz", **arrays)
    done = run_command(["python", "-m", "src.convert_checkpoint", f"--ckpt_file={folder / 'r 50.npz'}",
                        f"--output_file={folder / 'o.ckpt'}"], cwd=repo_dir / "faster_rcnn")
    assert done.returncode == 0, done.stderr
    assert_converted(folder / "o.ckpt", arrays)
    script = repo_dir / "faster_rcnn" / "src" / "convert_checkpoint.py"
    done = run_command(["python", script, "--ckpt_file=r 50.npz"], cwd=folder)
    assert done.returncode == 0, done.stderr
    assert_converted(folder / "backbone_r 50.ckpt", arrays)
    done = run_command(["python", script, "--ckpt_file=o.pth"], cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "convert_checkpoint.py: error: o.pth: no such file\n"


# --- real files ---

@pytest.mark.parametrize("model", ["faster_rcnn", "mask_rcnn"])
def test_parity_names_of_the_old_zoo(model, parity_file):
    shapes = json.loads(parity_file(f"zoo_names/{model}.json").read_text())
    conversion = convert_resnet({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, R50, "file")
    assert len(conversion.tensors) == 265 and conversion.missing == []
    assert [name for names in conversion.left_out.values() for name in names] == [
        name for name in shapes if not name.startswith("backbone.")]


def test_parity_partial_resnet50(parity_dir, tmp_path, capsys):
    source = parity_dir.parent / "weights" / "resnet50_partial_torchvision.npz"
    if not source.is_file():
        pytest.skip(f"no such file: {source}")
    output = tmp_path / "o.ckpt"
    assert convert_checkpoint.main([f"--ckpt_file={source}", f"--output_file={output}"]) == 0
    out, err = capsys.readouterr()
    assert "used: 125 tensors (25 convolutions" in out and "112 tensors of norms without their convolution" in out
    assert "1 tensor of the classifier (fc.bias)" in out
    assert "missing: layer3.0.conv2 ... layer4.2.conv3 (28 convolutions): will be initialised" in out
    assert f"warning: {source}: an incomplete backbone: it lacks 28 convolutions" in err
    loaded = ms.load_checkpoint(str(output))
    assert len(loaded) == 125
    with np.load(source, allow_pickle=False) as file:
        for name, value in loaded.items():
            cell, _, parameter = name.removeprefix("backbone.").rpartition(".")
            np.testing.assert_array_equal(value.asnumpy(), file[name_in("torchvision", cell, parameter)], strict=True)
