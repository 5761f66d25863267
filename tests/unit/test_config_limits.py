"""Configuration: ranges and lengths, as the comments of default_config.yaml declare them."""
import pytest

from faster_rcnn.src.model_utils import config_schema
from faster_rcnn.src.model_utils.config_schema import InputError, check_limits, read_keys


def limits_of(key) -> tuple:
    return key.lowest, key.highest, key.length, key.above


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
    # An empty list takes numbers; lists of numbers are examples.
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
def test_limits_are_of_numbers(write, value, limits):
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


def test_notation_of_the_documentation_is_understood(write):
    """The table in the docstring of config_schema.py."""
    lines = [line for line in config_schema.__doc__.splitlines() if line.startswith("[")]
    examples = [f"[{part.partition(']')[0]}]" for line in lines for part in line.split("[")[1:]]
    assert len(examples) == 6
    for example in examples:
        value = "[1]" if "each" in example or "values" in example else "1"
        assert limits_of(read_keys(write("keys.yaml", f"# Help {example}\nkey: {value}\n"))["key"]) != (None, None, None, False)
