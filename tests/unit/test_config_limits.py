"""Configuration: ranges and lengths that the comments of default_config.yaml declare."""
import pytest

from faster_rcnn.src.model_utils import config as faster_config
from faster_rcnn.src.model_utils.configuration import schema as config_schema
from faster_rcnn.src.model_utils.configuration.schema import InputError, check_limits, read_keys
from mask_rcnn.src.model_utils import config as mask_config
from refinedet.src.model_utils import config as refinedet_config

MODELS = {"faster_rcnn": faster_config, "mask_rcnn": mask_config, "refinedet": refinedet_config}
# These keys take numbers of either sign and any size, so they have no range.
WITHOUT_RANGE = {
    "image_mean": "pixel values may be centred on any number",
    "rpn_target_means": "box deltas have either sign",
    "rcnn_target_means": "box deltas have either sign",
}
of_every_model = pytest.mark.parametrize("model", MODELS)


def limits_of(key) -> tuple:
    return key.lowest, key.highest, key.length, key.above


def takes_numbers(key) -> bool:
    values = key.default if isinstance(key.default, list) else [key.default]
    return all(type(value) in (int, float) for value in values)


# ---- parsing

@pytest.mark.parametrize(("comment", "value", "expected"), [
    ("Steps", "1", (None, None, None, False)),
    ("Steps [1..]", "1", (1, None, None, False)),
    ("Steps [-2..3]; 0 = off", "1", (-2, 3, None, False)),
    ("Outputs [1..1]", "1", (1, 1, None, False)),
    ("Rate [0.01..4]", "1.0", (0.01, 4, None, False)),
    ("Rate [>0..]", "1.0", (0, None, None, True)),
    ("Rate [>0..1]", "1.0", (0, 1, None, True)),
    ("Rate [1e-6..1e3]", "1.0", (1e-6, 1000, None, False)),
    ("Strides [each 1..]", "[1, 2]", (1, None, None, False)),
    ("Means [4 values]", "[0.0]", (None, None, 4, False)),
    ("Blocks [4 values, each 1..]", "[1]", (1, None, 4, False)),
    ("Thresholds [12 values, each >0..1]", "[1]", (0, 1, 12, True)),
    # An empty list takes numbers. Lists in the comment are examples, not limits.
    ("Factors such as [0.8, 0.9,1.0] and [2]; [] = off [each 1e-6..]", "[]", (1e-6, None, None, False)),
    ("Factors such as [-1, 1]", "[]", (None, None, None, False)),
    ("Kind {a|b}, see [1] and ../docs ...", "a", (None, None, None, False)),
    ("Kind [optional]", "a", (None, None, None, False)),
    # A comment of two lines.
    ("Steps\n# [1..], then", "1", (1, None, None, False)),
])
def test_limits_in_a_comment(write, comment, value, expected):
    path = write("keys.yaml", f"# {comment}\nkey: {value}\n")
    assert limits_of(read_keys(path)["key"]) == expected


@pytest.mark.parametrize(("comment", "value"), [
    *((f"Steps {limits}", "1") for limits in (
        "[1...]", "[1-5]", "[1,..]", "[..5]", "[..]", "[ 1..]", "[>=0..]", "[<1..]", "[0..<1]", "[1..x]", "[5..4]", "[1..] [..5]",
        "[1..5] [2..4]", "[1..", "1..]", "(1..5)", "1..5", "[0..1)", "[each 1..]", "[4 values]", "[at least 1]")),
    *((f"Blocks {limits}", "[1, 2]") for limits in (
        "[1..]", "[4 x 1..]", "[4 values 1..]", "[4 values, 1..]", "[4 values,each 1..]", "[0 values]", "[-1 values]", "[values]",
        "[4 values, each]", "[each]", "[each 1..4, 4 values]", "[4 values] [each 1..]", "[each 2..1]", "[4 values, each 1.., ]")),
])
def test_malformed_limits_are_refused(write, comment, value):
    path = write("keys.yaml", f"## Section\n\n# {comment}\nkey: {value}\n")
    with pytest.raises(InputError) as caught:
        read_keys(path)
    expected = "[4 values], [each 1..] or [4 values, each 1..]" if value == "[1, 2]" else "[1..], [>0..] or [0..1]"
    assert str(caught.value).startswith(f"{path}:4: key: expected limits such as {expected} in its comment, got ")


@pytest.mark.parametrize("value", ["text", "True", "[a, b]", "{a: 1}"])
@pytest.mark.parametrize("limits", ["[1..]", "[2 values]"])
def test_limits_need_numbers(write, value, limits):
    path = write("keys.yaml", f"# Something {limits}\nkey: {value}\n")
    with pytest.raises(InputError) as caught:
        read_keys(path)
    assert str(caught.value) == f"{path}:2: key: its comment gives limits, {limits}, but it takes no numbers"


# ---- checking

@pytest.mark.parametrize(("limits", "inside", "outside", "message"), [
    ("[1..]", (1, 10**9), (0, -1), "expected at least 1"),
    ("[0..1]", (0, 1), (-1, 2), "expected 0 to 1"),
    ("[-2..-1]", (-2, -1), (-3, 0), "expected -2 to -1"),
    ("[1..1]", (1,), (0, 2), "expected 1"),
    ("[>0..]", (1e-9, 1), (0, -1), "expected more than 0"),
    ("[>0..1]", (1e-9, 1), (0, 1.5), "expected more than 0 and at most 1"),
    ("[0.01..4]", (0.01, 4), (0.009, 4.1), "expected 0.01 to 4"),
])
def test_ends_of_a_range(write, limits, inside, outside, message):
    number = read_keys(write("number.yaml", f"# Help {limits}\nkey: 1.0\n"))["key"]
    elements = read_keys(write("list.yaml", f"# Help {limits.replace('[', '[each ')}\nkey: [1.0]\n"))["key"]
    for value in inside:
        check_limits(value, number, "key")
        check_limits((value, value), elements, "key")
    for value in outside:
        for given, key in ((value, number), ((inside[0], value), elements)):
            with pytest.raises(InputError) as caught:
                check_limits(given, key, "a.yaml:3: key")
            assert str(caught.value) == f"a.yaml:3: key: {message}, got {value!r}"


def test_length_of_a_list(write):
    key = read_keys(write("keys.yaml", "# Help [2 values]\nkey: [1.0, 2.0]\n"))["key"]
    check_limits((-1, 5), key, "key")
    for value in ((), (1,), (1, 2, 3)):
        with pytest.raises(InputError) as caught:
            check_limits(value, key, "key")
        assert str(caught.value) == f"key: expected 2 values, got {len(value)}"


@of_every_model
@pytest.mark.parametrize(("key", "value", "expected"), [
    ("batch_size", "0", "expected at least 1, got 0"),
    ("weight_decay", "-0.5", "expected at least 0, got -0.5"),
    ("momentum", "1.5", "expected 0 to 1, got 1.5"),
    ("frozen_stages", "6", "expected 0 to 5, got 6"),
    ("loss_scale", "0", "expected at least 1e-06, got 0.0"),
    ("anchor_strides", "[8, 16, 0, 64]", "expected at least 1, got 0"),
    ("sgd_step", "[-1, 5]", "expected at least 0, got -1"),
    ("lr_steps", "[5, -1]", "expected at least 0, got -1.0"),
    ("image_std", "[1, 1, 0]", "expected at least 1e-06, got 0.0"),
    ("image_mean", "[0, 0]", "expected 3 values, got 2"),
    ("resnet_block", "[3, 4, 6]", "expected 4 values, got 3"),
])
def test_faults_are_reported_where_the_value_was_given(model, message, write, key, value, expected):
    config = MODELS[model]
    path = write("variant.yaml", f"seed: 2\n{key}: {value}\n")
    assert message(config.load_config, path) == f"{path}:2: {key}: {expected}"
    assert message(config.parse_config, [f"--{key}={value}"]) == f"--{key}: {expected}"


@pytest.mark.parametrize(("model", "key", "value", "expected"), [
    ("faster_rcnn", "test_nms_pre", 0, "expected at least 1, got 0"),
    ("faster_rcnn", "rpn_smooth_l1_beta", -1, "expected at least 0, got -1.0"),
    ("mask_rcnn", "rcnn_smooth_l1_beta", -1, "expected at least 0, got -1.0"),
    ("mask_rcnn", "mask_shape", [28, 0], "expected at least 1, got 0"),
    ("faster_rcnn", "fpn_num_outs", 6, "expected 4 to 5, got 6"),
    ("faster_rcnn", "rpn_cls_out_channels", 2, "expected 1, got 2"),
    ("refinedet", "vgg_channels", [64, 128, 256, 512, 0], "expected at least 1, got 0"),
])
def test_keys_of_one_model(model, message, key, value, expected):
    assert message(MODELS[model].load_config, overrides={key: value}) == f"{key}: {expected}"


# ---- the shipped keys

@of_every_model
def test_every_number_has_a_range(model):
    keys = read_keys(MODELS[model].DEFAULT_CONFIG)
    without = {name for name, key in keys.items() if takes_numbers(key) and key.lowest is None}
    assert without == set(WITHOUT_RANGE) & set(keys)
    assert all(keys[name].length for name in without)


@of_every_model
def test_limits_end_the_help(model):
    """Readers look for them there."""
    for key in read_keys(MODELS[model].DEFAULT_CONFIG).values():
        if takes_numbers(key):
            end = " values]" if key.lowest is None else "..]" if key.highest is None else f"..{key.highest:g}]"
            assert key.help.endswith(end), key.name


@of_every_model
def test_help_shows_the_limits(model, capsys):
    with pytest.raises(SystemExit):
        MODELS[model].parse_config(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--flip_ratio FLOAT Probability of a horizontal flip [0..1] (default: 0.5)" in text
    assert "--test_batch_size INT Images per batch in evaluation and inference [1..] (default: 1)" in text
    assert "[3 values, each 1e-6..] (default: [" in text
    assert "[1..] means at least 1" in text


def test_notation_of_the_documentation_is_understood(write):
    """Every example in the docstring of schema.py is parsed."""
    lines = [line for line in config_schema.__doc__.splitlines() if line.startswith("[")]
    examples = [f"[{part.partition(']')[0]}]" for line in lines for part in line.split("[")[1:]]
    assert len(examples) == 6
    for example in examples:
        value = "[1]" if "each" in example or "values" in example else "1"
        assert limits_of(read_keys(write("keys.yaml", f"# Help {example}\nkey: {value}\n"))["key"]) != (None, None, None, False)
