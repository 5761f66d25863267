"""Augmentations: probabilities and ranges of their draws, random streams, and configuration."""
import functools

import cv2
import numpy as np
import pytest

from faster_rcnn.src.model_utils import config as faster_config
from faster_rcnn.src.model_utils.data import augmentation as module
from faster_rcnn.src.model_utils.data.augmentation import AUGMENTATIONS, Augmenter, keys_of, random_stream
from faster_rcnn.src.model_utils.data.loading import TrainTransform
from faster_rcnn.src.model_utils.data.render import Plan, render
from faster_rcnn.src.model_utils.data.transforms import InputSize, Preprocess, shift_colours
from mask_rcnn.src.model_utils import config as mask_config
from refinedet.src.model_utils import config as refinedet_config
from tests.example_records import make_row
from tests.unit.test_transforms import picture, plain

VALUES = {"flip_ratio": 0.5, "photo_ratio": 0.5, "expand_ratio": 1.0, "expand_factor": 3.0, "crop_ratio": 0.5,
          "multi_scale": (0.7, 0.8, 0.9)}
BOXES = np.array([[20, 20, 60, 50]], np.float32)
of_every_model = pytest.mark.parametrize("config", [faster_config, mask_config, refinedet_config],
                                         ids=["faster_rcnn", "mask_rcnn", "refinedet"])


def plans(names, count=2000, **values):
    """Return the plans for images of 90 x 120."""
    augmenter = Augmenter(names, {**VALUES, **values})
    return [augmenter.plan((90, 120), BOXES, functools.partial(random_stream, 7, 1, index)) for index in range(count)]


def comparable(plan):
    """Return the content of a plan, with functions as names and amounts."""
    drawn = {**vars(plan), "boxes": plan.boxes.tolist()}
    return {**drawn, "recolour": [(change.func.__name__, change.keywords) for change in plan.recolour]}


# -------------------------------------------------------------------------------------------------- colours and chances

def test_shift_colours():
    image = picture(20, 30)
    np.testing.assert_array_equal(shift_colours(image, 0, 1, 1, 0), image)
    np.testing.assert_array_equal(shift_colours(image, 10, 1.5, 1, 0), np.clip(np.round(image * 1.5 + 10), 0, 255))
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    np.testing.assert_array_equal(shift_colours(grey, 0, 1, 1.4, 9), grey)       # grey has no saturation or hue
    red = np.array([[[0, 0, 255]]], np.uint8)
    assert shift_colours(red, 0, 1, 1, 60).tolist() == [[[0, 255, 0]]]           # 120 degrees further: green
    assert shift_colours(red, 0, 1, 1, -60).tolist() == [[[255, 0, 0]]]
    np.testing.assert_allclose(shift_colours(red, 0, 1, 0.5, 0), [[[127, 127, 255]]], atol=1)


def test_draws_keep_their_chances_and_ranges():
    drawn = plans(["photo", "expand", "multi_scale", "flip"], flip_ratio=0.3, expand_ratio=1.0, expand_factor=2.0,
                  photo_ratio=0.25, multi_scale=(0.5, 1.0))
    assert abs(np.mean([plan.flip_x for plan in drawn]) - 0.3) < 0.04            # 4 standard deviations
    assert abs(np.mean([bool(plan.recolour) for plan in drawn]) - 0.25) < 0.04
    factors = [plan.factor for plan in drawn]
    assert abs(np.mean(np.equal(factors, 0.5)) - 0.5) < 0.045 and set(factors) == {0.5, 1.0}
    margins = np.array([plan.margin for plan in drawn])
    assert abs(np.mean(margins == 1) - 0.5) < 0.045 and margins.min() >= 1 and 1.95 < margins.max() <= 2
    assert abs(margins[margins > 1].mean() - 1.5) < 0.04
    corners = np.array([plan.corner for plan in drawn if plan.margin > 1])
    np.testing.assert_allclose([corners.min(0), corners.mean(0), corners.max(0)], [[0] * 2, [0.5] * 2, [1] * 2], atol=0.04)
    rarely = [plan.margin for plan in plans(["expand"], expand_ratio=0.4, expand_factor=2.0)]
    assert abs(np.mean(np.array(rarely) > 1) - 0.2) < 0.036
    names = ("brightness", "contrast", "saturation", "hue")
    amounts = np.array([[plan.recolour[0].keywords[name] for name in names] for plan in drawn if plan.recolour])
    np.testing.assert_allclose(amounts.min(0), [-32, 0.5, 0.5, -9], atol=1.0)
    np.testing.assert_allclose(amounts.max(0), [32, 1.5, 1.5, 9], atol=1.0)
    np.testing.assert_allclose(amounts.mean(0) / [32, 1, 1, 9], [0, 1, 1, 0], atol=0.11)


@pytest.mark.parametrize("names", [["photo", "expand", "multi_scale", "flip"], ["ssd_photo", "ssd_expand", "crop", "flip"]])
@pytest.mark.parametrize("expand", [{"expand_ratio": 0.0, "expand_factor": 4.0}, {"expand_ratio": 1.0, "expand_factor": 1.0}])
def test_chances_of_0_and_ranges_of_1_change_nothing(names, expand):
    off = {"flip_ratio": 0.0, "photo_ratio": 0.0, **expand, "crop_ratio": 0.0, "multi_scale": ()}
    idle = Augmenter(names, off), Augmenter()
    for index in range(9):
        first, second = (comparable(one.plan((90, 120), BOXES, functools.partial(random_stream, 7, 1, index))) for one in idle)
        assert {**first, "corner": (0.0, 0.0)} == second     # the place on a canvas of its own size does not matter


# ------------------------------------------------------------------------------------------------------- random streams

def stream_states(names, index) -> dict:
    """Return the final state of each augmentation's stream, which shows what it drew."""
    streams = {}

    def stream(name):
        return streams.setdefault(name, random_stream(7, 1, index, name))

    Augmenter(names, VALUES).plan((90, 120), BOXES, stream)
    return {name: rng.bit_generator.state["state"] for name, rng in streams.items()}


@pytest.mark.parametrize("left_out", AUGMENTATIONS)
def test_omitting_one_or_reordering_keeps_the_draws_of_the_others(left_out):
    others = [name for name in AUGMENTATIONS if name != left_out]
    for index in range(20):
        states = stream_states(AUGMENTATIONS, index)
        states.pop(left_out)
        assert states == stream_states(others, index) == stream_states(others[::-1], index)


def test_draws_do_not_depend_on_the_others():
    both, single = plans(["photo", "expand", "multi_scale", "flip"], 50), plans(["flip"], 50)
    flips = [[plan.flip_x for plan in drawn] for drawn in (both, single)]
    assert flips[0] == flips[1] and 0 < sum(flips[0]) < 50
    windows = [[plan.window for plan in plans(names, 50)] for names in (["crop"], ["photo", "flip", "crop", "interpolation"])]
    assert windows[0] == windows[1] and len(set(windows[0])) > 10
    photos = [[comparable(plan)["recolour"] for plan in plans(["photo", "flip"], 50, flip_ratio=chance)] for chance in (0, 1)]
    assert photos[0] == photos[1]


def test_streams_differ_by_seed_epoch_index_and_name():
    places = [(1, 2, 3, "flip"), (0, 2, 3, "flip"), (1, 0, 3, "flip"), (1, 2, 0, "flip"), (1, 2, 3, "photo"), (2, 1, 3, "flip")]
    assert len({random_stream(*place).random() for place in places}) == len(places)
    assert random_stream(1, 2, 3, "flip").random() == random_stream(1, 2, 3, "flip").random()
    # A literal: resumed runs of later versions rely on it.
    assert random_stream(1, 2, 3, "flip").random() == np.random.default_rng([1, 2, 3, 2600395861]).random()


def test_the_choice_among_too_many_objects_has_a_stream_of_its_own():
    row = make_row(0, objects=9)
    record = [np.array([row["image"]]), *(row[name] for name in TrainTransform.RECORD[1:])]
    chosen = [TrainTransform(plain(InputSize(48, 64)), augmenter, 4, 3).load(1, *record)[1].tolist()
              for augmenter in (Augmenter(), Augmenter(["photo", "flip"], VALUES))]
    assert chosen[0] == chosen[1] and len(chosen[0]) == 4


# ---------------------------------------------------------------------------------------------------- a new function

def test_a_function_with_a_key_and_a_default(monkeypatch):
    monkeypatch.setattr(module, "AUGMENTATIONS", dict(AUGMENTATIONS))

    @module.augmentation
    def grayscale(plan, rng, grey_ratio, weight=1.0):
        if rng.random() < grey_ratio:
            plan.recolour.append(lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR))

    assert keys_of("grayscale") == ("grey_ratio",)
    preprocess, image = Preprocess(InputSize(48, 64), (0,) * 3, (1,) * 3), picture(30, 40)
    for chance, grey in ((1.0, True), (0.0, False)):
        augmenter = Augmenter(["flip", "grayscale"], {**VALUES, "grey_ratio": chance})
        got, *_ = augmenter(image, BOXES, preprocess, functools.partial(random_stream, 7, 1, 0))
        assert np.array_equal(got[0], got[1]) == grey


def test_recolouring_must_keep_shape_and_type():
    plan = Plan((30, 40), BOXES, recolour=[lambda image: image[..., 0]])
    with pytest.raises(ValueError, match=r"expected \(48, 64, 3\) of uint8, got \(48, 64\) of uint8"):
        render(picture(30, 40), plain(InputSize(48, 64)), plan)


@of_every_model
def test_every_augmentation_has_a_docstring_and_its_keys(config):
    assert all(function.__doc__.strip() for function in AUGMENTATIONS.values())
    defaults = config.load_config()
    assert set(defaults.augmentations) <= set(AUGMENTATIONS)
    keys = {key for name in defaults.augmentations for key in keys_of(name)}
    assert keys == {"flip_ratio", "photo_ratio", "expand_ratio", "expand_factor", "crop_ratio", "multi_scale"} & set(defaults)


# -------------------------------------------------------------------------------------------------------- configuration

@of_every_model
@pytest.mark.parametrize(("names", "expected"), [
    ("[flip, flp]", "got 'flp', did you mean flip?"), ("[photos]", "got 'photos', did you mean photo?"),
    ("[mosaic]", "got 'mosaic'"), ("[flip, photo, flip]", "given twice: flip"), ("[flip, 3]", "expected text, got 3")])
def test_errors_name_file_line_and_key(config, message, write, names, expected):
    path = write("variant.yaml", f"seed: 2\naugmentations: {names}\n")
    error = message(config.load_config, path)
    assert error.startswith(f"{path}:2: augmentations") and expected in error
    assert message(config.parse_config, [f"--augmentations={names}"]).startswith("--augmentations")


@of_every_model
def test_a_list_on_the_command_line(config):
    assert config.parse_config(["--augmentations=flip,photo"]).augmentations == ("flip", "photo")
    assert config.parse_config(["--augmentations=[]"]).augmentations == ()


def test_a_key_that_the_model_lacks_is_named(message):
    assert message(faster_config.load_config, overrides={"augmentations": ["flip", "crop"]}) == (
        "augmentations: crop reads crop_ratio; declare each in default_config.yaml to use it")
    assert message(refinedet_config.load_config, overrides={"augmentations": ["multi_scale"]}).startswith(
        "augmentations: multi_scale reads multi_scale;")


def test_factors_above_the_input_are_refused(message):
    error = message(faster_config.load_config, overrides={"multi_scale": [1.0, 1.2]})
    assert error == "multi_scale: expected 1e-06 to 1, got 1.2"
