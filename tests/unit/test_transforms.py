"""Preprocessing: sizes, decoding and pixel values, against literals, plain loops and other frameworks."""
import functools
import struct
import zlib

import cv2
import numpy as np
import pytest

from faster_rcnn.src.model_utils.data.render import Plan, render
from faster_rcnn.src.model_utils.data.transforms import (
    InputSize,
    Preprocess,
    decode_image,
    resize,
    shift_colours,
)
from tests.parity_models import ParityModel, fixture_folders, label


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plain(size):
    """A Preprocess that leaves the values unchanged, in BGR order."""
    return Preprocess(size, (0, 0, 0), (1, 1, 1), to_rgb=False)


def augment(image, preprocess, **what):
    """(image (3, H, W), info (6,), placement)."""
    return render(image, preprocess, Plan(image.shape[:2], np.zeros((0, 4), np.float32), **what))


def augment_boxes(image, boxes, preprocess, **what):
    """(image (3, H, W), info (6,), boxes (N, 4))."""
    got, info, placed = augment(image, preprocess, **what)
    return got, info, placed.boxes(np.array(boxes, np.float32))


def colours(*amounts):
    """Plan.recolour for the given brightness, contrast, saturation and hue."""
    return [functools.partial(shift_colours, **dict(zip(("brightness", "contrast", "saturation", "hue"), amounts)))]


# --------------------------------------------------------------------------------------------------------------- sizes

@pytest.mark.parametrize("shape, expected", [
    ((480, 640), (768, 1024)), ((427, 640), (768, 1151)), ((640, 480), (768, 576)), ((100, 1000), (128, 1280)),
    ((768, 1280), (768, 1280)), ((1, 5000), (1, 1280)), ((333, 500), (768, 1153))])
def test_fixed_size_fits_into_the_input(shape, expected):
    size = InputSize(768, 1280)
    assert size.resized(*shape) == expected
    assert size.padded(*expected) == (768, 1280)


@pytest.mark.parametrize("shape, nearest, floor, padded", [
    ((480, 640), (800, 1067), (800, 1066), (800, 1088)), ((640, 480), (1067, 800), (1066, 800), (1088, 800)),
    ((427, 640), (800, 1199), (800, 1199), (800, 1216)), ((400, 1000), (533, 1333), (533, 1333), (544, 1344)),
    ((500, 333), (1201, 800), (1201, 800), (1216, 800)), ((375, 1242), (402, 1333), (402, 1333), (416, 1344))])
def test_divisor_bounds_the_short_and_the_long_side(shape, nearest, floor, padded):
    size = InputSize(800, 1333, pad_to="divisor")
    assert size.resized(*shape) == nearest
    assert InputSize(800, 1333, pad_to="divisor", rounding="floor").resized(*shape) == floor
    assert size.padded(*nearest) == padded


def resized_by_detectron2(height, width, short=800, long=1333):
    """ResizeShortestEdge.get_output_shape, with its order of operations."""
    scale = short / min(height, width)
    new = (short, scale * width) if height < width else (scale * height, short)
    if max(new) > long:
        scale = long / max(new)
        new = (new[0] * scale, new[1] * scale)
    return int(new[0] + 0.5), int(new[1] + 0.5)


def test_nearest_rounding_matches_detectron2():
    size, rng = InputSize(800, 1333, pad_to="divisor"), np.random.default_rng(0)
    shapes = rng.integers(100, 3000, (3000, 2)).tolist()
    differ = [shape for shape in shapes if size.resized(*shape) != resized_by_detectron2(*shape)]
    # detectron2 scales twice where the long side decides, which may cross an exact half.
    assert len(differ) <= 3
    for shape in differ:
        assert np.abs(np.subtract(size.resized(*shape), resized_by_detectron2(*shape))).max() <= 1


def test_padding_to_a_given_size_keeps_the_bounds_and_never_exceeds_it():
    size = InputSize(192, 288, pad_to="192x288")
    for shape in ((192, 256), (176, 288)):
        assert size.resized(*shape) == shape and size.padded(*shape) == (192, 288)
    assert size.resized(600, 400) == (192, 128)     # upright: the bounds allow 288 x 192, but there are only 192 rows
    assert InputSize(800, 1333, pad_to="1344x1344").resized(640, 480) == (1067, 800)


def test_stretching_gives_the_exact_target():
    size = InputSize(768, 1280, keep_ratio=False)
    assert {size.resized(h, w) for h in range(1, 900, 7) for w in (1, 33, 480, 641, 1999)} == {(768, 1280)}
    assert InputSize(768, 1280, keep_ratio=False, pad_to="divisor").padded(768, 1280) == (768, 1280)
    _, info = plain(InputSize(64, 96, keep_ratio=False))(picture(32, 32))
    assert info.tolist() == [64, 96, 2, 3, 32, 32]


@pytest.mark.parametrize("arguments", [{"pad_to": "800"}, {"pad_to": "0x32"}, {"rounding": "ceil"}])
def test_bad_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        InputSize(768, 1280, **arguments)


# ------------------------------------------------------------------------------------------------------------ decoding

def png(rows, colour_type, depth, *chunks):
    """A PNG written by hand, for kinds that OpenCV does not write."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width = np.size(rows[0]) // {0: 1, 3: 1, 6: 4}[colour_type]     # grey, palette, red green blue alpha
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    body = b"".join(b"\0" + np.asarray(row, ">u2" if depth == 16 else "u1").tobytes() for row in rows)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_every_kind_of_image_decodes_to_three_channels_of_bytes():
    grey = [[0, 100, 255], [7, 8, 9]]
    assert decode_image(png(grey, 0, 8)).tolist() == [[[v] * 3 for v in row] for row in grey]
    deep = np.array(grey) * 257
    assert decode_image(png(deep.tolist(), 0, 16)).tolist() == [[[v] * 3 for v in row] for row in grey]
    palette = bytes([10, 20, 30, 200, 100, 50])     # red, green, blue
    assert decode_image(png([[1, 0]], 3, 8, (b"PLTE", palette))).tolist() == [[[50, 100, 200], [30, 20, 10]]]
    transparent = [[1, 2, 3, 0, 4, 5, 6, 255]]
    assert decode_image(png(transparent, 6, 8)).tolist() == [[[3, 2, 1], [6, 5, 4]]]
    assert decode_image(np.frombuffer(png(grey, 0, 8), np.uint8)).shape == (2, 3, 3)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff", np.zeros(0, np.uint8)])
def test_data_that_is_not_an_image_is_refused(data):
    with pytest.raises(ValueError, match="not an image|the file is empty"):
        decode_image(data)


# -------------------------------------------------------------------------------------------------------------- values

def resized_by_hand(image, height, width):
    """Bilinear at pixel centres, in float64."""
    def taps(new, old):
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, old - 1), at - low

    y0, y1, fy = taps(height, image.shape[0])
    x0, x1, fx = taps(width, image.shape[1])
    image = image.astype(np.float64)
    fy, fx = fy[:, None, None], fx[None, :, None]
    top = image[y0][:, x0] * (1 - fx) + image[y0][:, x1] * fx
    bottom = image[y1][:, x0] * (1 - fx) + image[y1][:, x1] * fx
    return top * (1 - fy) + bottom * fy


@pytest.mark.parametrize("size", [(24, 40), (9, 7), (13, 50)])
def test_resize_is_bilinear_at_pixel_centres(size):
    image = picture(16, 20)
    got = resize(image, size)
    assert got.shape == (*size, 3) and got.dtype == np.uint8
    np.testing.assert_allclose(got, resized_by_hand(image, *size), atol=1.0)    # OpenCV computes in 11 bits
    assert resize(image, (16, 20)) is image


def smoothed_by_hand(image, height, width):
    """Pillow's bilinear filter in float64: a triangle as wide as an output pixel, if that is larger than an input pixel."""
    def weights(new, old):
        scale = old / new
        reach = max(scale, 1.0)
        centre = (np.arange(new) + 0.5) * scale
        rows = np.maximum(1 - np.abs(np.arange(old) + 0.5 - centre[:, None]) / reach, 0)
        return rows / rows.sum(1, keepdims=True)

    return np.einsum("yh,xw,hwc->yxc", weights(height, image.shape[0]), weights(width, image.shape[1]), image.astype(np.float64))


@pytest.mark.parametrize("size", [(24, 40), (9, 7), (5, 30), (13, 20)])
@pytest.mark.parametrize("mode, by_hand, dtype, tolerance", [
    ("pillow", smoothed_by_hand, np.uint8, 1.0), ("float", resized_by_hand, np.float32, 1e-3)])
def test_other_resize_modes(size, mode, by_hand, dtype, tolerance):
    image = picture(16, 20)
    got = resize(image, size, mode)
    assert got.shape == (*size, 3) and got.dtype == dtype
    np.testing.assert_allclose(got, by_hand(image, *size), atol=tolerance)
    if size == (9, 7):      # the modes differ when an image shrinks
        assert np.abs(smoothed_by_hand(image, *size) - resized_by_hand(image, *size)).max() > 5


@pytest.mark.parametrize("mode", ["pillow", "float"])
def test_preprocess_normalises_in_every_resize_mode(mode):
    mean, std, image = (10.0, 20.0, 30.0), (2.0, 4.0, 5.0), picture(16, 20)
    got, _ = Preprocess(InputSize(8, 10), mean, std, False, mode)(image)
    np.testing.assert_allclose(got, ((resize(image, (8, 10), mode) - np.array(mean)) / std).transpose(2, 0, 1), atol=1e-5)
    trained, *_ = augment(image, Preprocess(InputSize(8, 10), mean, std, False, mode))
    np.testing.assert_array_equal(trained, got)
    coloured, *_ = augment(image, Preprocess(InputSize(8, 10), mean, std, False, mode), recolour=colours(9, 1, 1, 0))
    assert np.isfinite(coloured).all() and coloured.mean() > got.mean()


def test_unknown_resize_mode_is_refused():
    with pytest.raises(ValueError, match="resize_mode: expected one of opencv, area, pillow, float, got 'nearest'"):
        Preprocess(InputSize(8, 8), (0, 0, 0), (1, 1, 1), True, "nearest")


@pytest.mark.parametrize("to_rgb", [True, False])
def test_preprocess_matches_a_loop(to_rgb):
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    image = picture(5, 7)
    got, info = Preprocess(InputSize(5, 9), mean, std, to_rgb)(image)
    assert got.shape == (3, 5, 9) and got.dtype == np.float32 and got.flags.c_contiguous
    for c in range(3):
        for y in range(5):
            for x in range(9):
                value = 0.0 if x >= 7 else (float(image[y, x, 2 - c if to_rgb else c]) - mean[c]) / std[c]
                assert abs(got[c, y, x] - value) < 1e-6     # values up to 2.7
    assert info.tolist() == [5, 7, 1, 1, 5, 7] and info.dtype == np.float32


def test_info_holds_the_scale_of_each_axis():
    _, info = plain(InputSize(768, 1280))(picture(427, 640))
    np.testing.assert_array_equal(info, np.array([768, 1151, 768 / 427, 1151 / 640, 427, 640], np.float32))


@pytest.mark.parametrize("shape, dtype", [((4, 4), np.uint8), ((4, 4, 4), np.uint8), ((4, 4, 3), np.float32)])
def test_preprocess_refuses_other_arrays(shape, dtype):
    with pytest.raises(ValueError, match="uint8"):
        plain(InputSize(8, 8))(np.zeros(shape, dtype))


@pytest.mark.parametrize("shape", [(60, 83, 3), (37, 20, 3)])
def test_exact_scale_resizes_by_the_factor_before_it_is_rounded(shape):
    """As in OpenCV given the factor: pixels and size differ from the default's, and boxes are divided by the factor."""
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    height, width, _ = shape
    scale = min(41 / height, 64 / width)
    wanted = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    exact = InputSize(41, 64, rounding="even", exact_scale=True)
    got = Preprocess(exact, (0, 0, 0), (1, 1, 1), False, "area", True)(image)
    rows, columns = wanted.shape[:2]
    np.testing.assert_array_equal(got.image[:, :rows, :columns], wanted.transpose(2, 0, 1))
    np.testing.assert_allclose(got.info, [rows, columns, scale, scale, height, width])
    plain = Preprocess(InputSize(41, 64, rounding="even"), (0, 0, 0), (1, 1, 1), False, "area")(image)
    assert (plain.image != got.image).any() and (plain.info[2:4] != got.info[2:4]).any()


@pytest.mark.parametrize("to_rgb", [True, False])
def test_black_padding_is_normalised_and_mean_padding_is_not(to_rgb):
    black, mean = (Preprocess(InputSize(8, 8), (10, 20, 30), (2, 4, 5), to_rgb, pad_black=pad)(np.zeros((4, 8, 3), np.uint8)).image
                   for pad in (True, False))
    np.testing.assert_array_equal(black, np.broadcast_to(np.float32([-5, -5, -6]).reshape(3, 1, 1), (3, 8, 8)))
    np.testing.assert_array_equal(mean[:, :4], black[:, :4])
    assert not mean[:, 4:].any()


# ---------------------------------------------------------------------------------------------------- other frameworks

# Per framework: mean and standard deviation of values up to 255, whether red comes first, tolerance.
IMAGENET = (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))
NORMALISE = {"detectron2": ((103.530, 116.280, 123.675), (1, 1, 1), False, 3e-5),
             "torchvision": (255 * IMAGENET[0], 255 * IMAGENET[1], True, 3e-6),
             "mmdet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), True, 3e-6),
             "mslab": (255 * IMAGENET[0], 255 * IMAGENET[1], True, 5e-6)}


@pytest.mark.parametrize("folder", fixture_folders(), ids=label)
def test_parity_of_the_network_input(folder):
    model = ParityModel(folder)
    *numbers, to_rgb, tolerance = NORMALISE[model.framework]
    size = model.size()
    mslab = model.framework == "mslab"
    size = InputSize(size["img_height"], size["img_width"], pad_to=size.get("pad_to", "fixed"),
                     rounding="even" if mslab else "nearest", exact_scale=mslab)
    preprocess = Preprocess(size, *numbers, to_rgb, "area" if mslab else "opencv", mslab)
    for path, image, expected in zip(model.images, model.arrays["input/images"], model.image_info):
        picture = decode_image(path.read_bytes())
        got, info = preprocess(picture)
        np.testing.assert_allclose(got, image, rtol=0, atol=tolerance)
        assert picture.shape[:2] == tuple(expected[4:])
        np.testing.assert_allclose(info, expected, rtol=1e-6)
