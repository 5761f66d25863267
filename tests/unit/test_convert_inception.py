"""ImageNet weights of Inception-ResNet-v2 under the names of timm, Cadene and the old zoo's backbone."""
import numpy as np
import pytest
from mindspore import load_checkpoint
from safetensors.numpy import save_file

from faster_rcnn.src import convert_checkpoint
from faster_rcnn.src.FasterRcnn.conversion.inception_names import CELLS, convert_inception, parameters_of, translate
from faster_rcnn.src.FasterRcnn.inceptionresnetv2 import InceptionResNetV2
from faster_rcnn.src.model_utils.config import InputError
from tests.unit.test_convert_checkpoint import write_torch

NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
# Shapes in the PyTorch implementations: (in, out, height, width) of each branch. Equal blocks are listed once.
STEM = {"conv2d_1a": (3, 32, 3, 3), "conv2d_2a": (32, 32, 3, 3), "conv2d_2b": (32, 64, 3, 3), "conv2d_3b": (64, 80, 1, 1),
        "conv2d_4a": (80, 192, 3, 3), "conv2d_7b": (2080, 1536, 1, 1)}
MIXED = {
    "mixed_5b": {"branch0": (192, 96, 1, 1), "branch1.0": (192, 48, 1, 1), "branch1.1": (48, 64, 5, 5),
                 "branch2.0": (192, 64, 1, 1), "branch2.1": (64, 96, 3, 3), "branch2.2": (96, 96, 3, 3),
                 "branch3.1": (192, 64, 1, 1)},
    "mixed_6a": {"branch0": (320, 384, 3, 3), "branch1.0": (320, 256, 1, 1), "branch1.1": (256, 256, 3, 3),
                 "branch1.2": (256, 384, 3, 3)},
    "mixed_7a": {"branch0.0": (1088, 256, 1, 1), "branch0.1": (256, 384, 3, 3), "branch1.0": (1088, 256, 1, 1),
                 "branch1.1": (256, 288, 3, 3), "branch2.0": (1088, 256, 1, 1), "branch2.1": (256, 288, 3, 3),
                 "branch2.2": (288, 320, 3, 3)}}
BLOCK8 = {"branch0": (2080, 192, 1, 1), "branch1.0": (2080, 192, 1, 1), "branch1.1": (192, 224, 1, 3),
          "branch1.2": (224, 256, 3, 1), "conv2d": (448, 2080, 1, 1)}
BLOCKS = {
    "repeat": (10, {"branch0": (320, 32, 1, 1), "branch1.0": (320, 32, 1, 1), "branch1.1": (32, 32, 3, 3),
                    "branch2.0": (320, 32, 1, 1), "branch2.1": (32, 48, 3, 3), "branch2.2": (48, 64, 3, 3),
                    "conv2d": (128, 320, 1, 1)}),
    "repeat_1": (20, {"branch0": (1088, 192, 1, 1), "branch1.0": (1088, 128, 1, 1), "branch1.1": (128, 160, 1, 7),
                      "branch1.2": (160, 192, 7, 1), "conv2d": (384, 1088, 1, 1)}),
    "repeat_2": (9, BLOCK8)}


def layers():
    """Return {name: (in, out, height, width)} of every convolution in a file."""
    found = dict(STEM)
    for place, branches in (*MIXED.items(), ("block8", BLOCK8)):
        found |= {f"{place}.{branch}": shape for branch, shape in branches.items()}
    for place, (count, branches) in BLOCKS.items():
        found |= {f"{place}.{number}.{branch}": shape for number in range(count) for branch, shape in branches.items()}
    return found


def weights(names=None, counters=True) -> dict:
    """Return arrays that are each filled with a different value. They are broadcast, so they take no memory."""
    arrays = {}

    def add(name, shape):
        arrays[name] = np.broadcast_to(np.float32(len(arrays)), shape)

    for name, (entering, leaving, *kernel) in layers().items():
        if names is not None and name not in names:
            continue
        if name.endswith("conv2d"):
            add(f"{name}.weight", (leaving, entering, *kernel))
            add(f"{name}.bias", (leaving,))
            continue
        add(f"{name}.conv.weight", (leaving, entering, *kernel))
        for leaf in NORM:
            add(f"{name}.bn.{leaf}", (leaving,))
        if counters:
            arrays[f"{name}.bn.num_batches_tracked"] = np.zeros((), np.int64)
    return arrays


def ours(name: str) -> str:
    cell, _, leaf = name.rpartition(".")
    if cell.endswith(".bn"):
        leaf = NORM[leaf]
    return f"backbone.{cell.removesuffix('.conv').removesuffix('.bn')}.{leaf}"


@pytest.mark.parametrize(("classifier", "prefix"), [("classif", ""), ("last_linear", ""), ("classif", "module.")])
def test_every_name_is_mapped(classifier, prefix):
    arrays = {**weights(), f"{classifier}.weight": np.zeros((2, 2)), f"{classifier}.bias": np.zeros(2)}
    conversion = convert_inception({prefix + name: array for name, array in arrays.items()}, "inception_resnet_v2",
                                   "file")
    assert conversion.missing == [] and conversion.depth == "Inception-ResNet-v2"
    assert {reason: len(names) for reason, names in conversion.left_out.items()} == {
        "that count batches": 204, "of the classifier": 2}
    wanted = {ours(name): arrays[name] for name in weights(counters=False)}
    assert set(conversion.tensors) == set(wanted) and len(wanted) == 5 * 204 + 2 * 40
    for name, array in wanted.items():
        value = conversion.tensors[name]
        assert value.shape == array.shape and (value == array.flat[0]).all() and value.dtype == np.float32, name


def test_names_and_shapes_are_those_of_the_network():
    parameters = {name: tuple(param.shape) for name, param in InceptionResNetV2().parameters_and_names()}
    assert parameters == {f"{cell}.{parameter}": shape if parameter == "weight" else shape[:1]
                          for cell, shape in CELLS.items() for parameter in parameters_of(cell)}


@pytest.mark.parametrize(("theirs", "found"), [
    ("backbone.conv2d_1a.bn.moving_variance", ("conv2d_1a", "moving_variance")),     # the old zoo's
    ("mixed_5b.branch3.1.conv.weight", ("mixed_5b.branch3.1", "weight")), ("block8.conv2d.bias", ("block8.conv2d", "bias")),
    *((name, None) for name in (
        "conv2d_1a.weight", "conv2d_1a.conv.bias", "conv2d_1a.bn.eps", "mixed_5b.branch3.0.conv.weight",
        "repeat.10.branch0.conv.weight",
        "repeat_2.9.conv2d.weight", "mixed_6a.branch2.conv.weight", "conv2d_5b.conv.weight", "layer1.0.conv1.weight"))])
def test_translate(theirs, found):
    assert translate(theirs) == found


SOME = ("conv2d_1a", "conv2d_2a", "repeat.3.conv2d", "repeat.3.branch0")


@pytest.mark.parametrize("container", ["pth", "safetensors"])
def test_the_command(container, tmp_path, capsys):
    rng = np.random.default_rng(0)
    arrays = {name: rng.random(array.shape, np.float32) for name, array in weights(SOME, counters=False).items()}
    del arrays["repeat.3.branch0.bn.running_var"]
    arrays["last_linear.bias"] = np.zeros(3, np.float32)
    arrays["repeat.3.branch5.conv.weight"] = np.zeros(3, np.float32)
    path, output = tmp_path / f"m.{container}", tmp_path / "o.ckpt"
    if container == "pth":
        write_torch("zip", path, arrays)
    else:
        save_file(arrays, path)
    assert convert_checkpoint.main([f"--ckpt_file={path}", f"--output_file={output}"]) == 0
    out, err = capsys.readouterr()
    assert "Inception-ResNet-v2, 18 tensors" in out
    assert "used: 12 tensors (3 convolutions with norms or biases) for inception_resnet_v2" in out
    assert "left out: 4 tensors of convolutions with an incomplete norm (repeat.3.branch0." in out
    assert "left out: 1 tensor of the classifier (last_linear.bias)" in out
    assert "missing: conv2d_2b ... repeat.3.branch2.2 (" in out and "missing: repeat.4.branch0 ... conv2d_7b (" in out
    assert "backbone: train with --backbone=inception_resnet_v2" in out and "mean 0.5, std 0.5" in out
    assert "an incomplete backbone: it lacks 241 convolutions of inception_resnet_v2" in err
    assert "its blocks hold 1 tensor more than an Inception-ResNet-v2's (repeat.3.branch5.conv.weight)" in err
    loaded = load_checkpoint(str(output))
    assert len(loaded) == 12
    for name, array in arrays.items():
        if not name.startswith(("last_linear", "repeat.3.branch")):
            np.testing.assert_array_equal(loaded[ours(name)].asnumpy(), array, name, strict=True)


def test_files_that_do_not_fit(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, **{"conv2d_1a.conv.weight": np.zeros((32, 3, 5, 5), np.float32)})
    with pytest.raises(InputError, match=r"m.npz: 1 of 1 tensors do not fit inception_resnet_v2: conv2d_1a.conv.weight is \(32"):
        convert_checkpoint.main([f"--ckpt_file={path}"])
    with pytest.raises(InputError, match="^--backbone: resnet_v1_101, but the names in .*m.npz are those of an Inception-Res"):
        convert_checkpoint.main([f"--ckpt_file={path}", "--backbone=resnet_v1_101"])
    np.savez(path, **{"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})
    with pytest.raises(InputError, match="^--backbone: inception_resnet_v2, but the names in .*m.npz are those of no Inception"):
        convert_checkpoint.main([f"--ckpt_file={path}", "--backbone=inception_resnet_v2"])
    np.savez(path, **{"backbone.conv2d_1a.conv.weight": np.zeros(1), "rpn_with_loss.x": np.zeros(1)})
    with pytest.raises(InputError, match=r"a detector on Inception-ResNet-v2, of which only the backbone can be converted"):
        convert_checkpoint.main([f"--ckpt_file={path}"])
    own = {"backbone.conv2d_1a.gamma": np.zeros(32, np.float32), "backbone.conv2d_1a.weight": np.zeros((32, 3, 3, 3), np.float32)}
    np.savez(path, **own)
    with pytest.raises(InputError, match="already a checkpoint of this project"):
        convert_checkpoint.main([f"--ckpt_file={path}"])
    (tmp_path / "c.yaml").write_text("backbone: inception_resnet_v2\n")
    with pytest.raises(InputError, match="torchvision has no detector on inception_resnet_v2"):
        convert_checkpoint.main([f"--ckpt_file={path}", f"--config_path={tmp_path / 'c.yaml'}", "--to=torchvision"])
