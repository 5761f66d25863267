"""The image decoder: formats, EXIF orientations compared with Pillow's, limits and refusals."""
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from faster_rcnn.src.model_utils.data.decoding import DecodeError, decode_image, turn
from faster_rcnn.src.model_utils.data.image_header import find_orientation, without_orientation
from tests.cpp_program import mutated, smooth_picture
from utils.mindrecord.image_files import ImageError, choose_frame, inspect

PICTURE = Image.fromarray(smooth_picture(37, 58))


def encoded(kind: str, orientation=None, image=PICTURE, **options) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x112] = orientation
        options["exif"] = exif
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    """Return the image as a viewer shows it: (H, W, 3) uint8 in the order blue, green, red."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))[..., ::-1]


def png_of_size(width: int, height: int) -> bytes:
    chunks = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT", b"IEND"
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
                                          for chunk in chunks)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_images_are_turned_as_pillow_turns_them(kind, orientation):
    data = encoded(kind, orientation)
    got, want = decode_image(data), by_pillow(data)
    assert got.shape == want.shape == ((58, 37, 3) if orientation >= 5 else (37, 58, 3))
    assert np.abs(got.astype(int) - want).max() <= {"PNG": 0, "TIFF": 0}.get(kind, 4)
    info = inspect(data)
    assert (info.turned().height, info.turned().width) == got.shape[:2]
    if kind != "AVIF":      # which has no orientation tag
        assert info.orientation == orientation and (info.height, info.width) == (37, 58)
        plain = decode_image(encoded(kind, 1))
        np.testing.assert_array_equal(decode_image(data, upright=False), plain)
        rewritten = without_orientation(data)
        assert len(rewritten) == len(data) and find_orientation(rewritten) is None
        np.testing.assert_array_equal(decode_image(rewritten), plain)
        np.testing.assert_allclose(by_pillow(rewritten), plain, atol=4)     # Pillow verifies PNG checksums


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_twice(orientation):
    """A quarter turn back undoes a quarter turn. Every other orientation undoes itself."""
    image = np.asarray(PICTURE)
    back = {6: 8, 8: 6}.get(orientation, orientation)
    np.testing.assert_array_equal(turn(turn(image, orientation), back), image)


def test_invalid_and_unusual_orientations():
    for orientation in (0, 1, 9, 300):
        data = encoded("JPEG", orientation)
        assert find_orientation(data) is None and without_orientation(data) == data and inspect(data).orientation == 1
    data = encoded("JPEG", 6)
    padded = data[:2] + b"\xff\xfe\0\x04ab" + b"\xff" + data[2:]       # a comment, and padding before the EXIF data
    assert find_orientation(padded).value == 6
    as_long = data.replace(b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0", b"\x01\x12\0\x04\0\0\0\x01\0\0\0\x06")
    assert as_long != data and find_orientation(as_long).value == 6
    assert find_orientation(without_orientation(as_long)) is None


@pytest.mark.filterwarnings("ignore::UserWarning")      # Pillow warns
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_damaged_headers_are_handled(kind):
    data = encoded(kind, 6)
    for seed in range(100):
        damaged = mutated(data[:200], seed) + data[200:]
        assert find_orientation(without_orientation(damaged)) is None
        try:
            inspect(damaged)
        except ImageError as error:
            assert "\n" not in str(error) and error.kind


@pytest.mark.parametrize("kind, mode", [("GIF", "P"), ("GIF", "L"), ("TGA", "RGB"), ("TGA", "RGBA"), ("PCX", "RGB"), ("PCX", "L"),
                                        ("ICO", "RGBA"), ("AVIF", "RGB"), ("TIFF", "CMYK")])
def test_formats_that_pillow_decodes(kind, mode):
    data = encoded(kind, image=PICTURE.resize((48, 32)).convert(mode))
    want = by_pillow(data)
    np.testing.assert_array_equal(decode_image(data), want)
    assert want.std() > 10 and inspect(data).height == want.shape[0]


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(stream.getvalue())[5, 5].tolist() == [0, 0, 255]


def refusals():
    values = np.linspace(0, 1, 20 * 30).reshape(20, 30)
    jpeg = encoded("JPEG")
    frame = jpeg.index(b"\xff\xc0")
    gif, png = encoded("GIF"), encoded("PNG")
    return {
        "floating-point": [encoded("TIFF", image=Image.fromarray(values.astype(np.float32))),
                           encoded("TIFF", image=Image.fromarray((values * 1e6).astype(np.int32))),
                           b"PF\n3 2\n-1.0\n" + bytes(72)],
        "pixels; the limits are": [png_of_size(16385, 16384), png_of_size(1_000_001, 1)],
        "more than 268435456 pixels": [gif[:6] + struct.pack("<HH", 65535, 65535) + gif[10:]],
        "16385x16384 pixels; the limits": [gif[:6] + struct.pack("<HH", 16385, 16384) + gif[10:]],
        "the file is empty": [b""],
        "not an image of a known format": [b"no picture", b"<svg/>", bytes(500)],
        "broken data stream|OpenCV does not decode|not an image": [
            jpeg[:frame + 4] + b"\x0c" + jpeg[frame + 5:],      # 12 bits
            jpeg[:frame + 1] + b"\xc5" + jpeg[frame + 2:]],     # hierarchical
        "(?i)truncated": [jpeg[:len(jpeg) // 2], encoded("BMP")[:-40], gif[:-300]],
        "truncated or damaged: PNG chunk b'IDAT' claims": [png[:-400], png[:33] + b"\x7f" + png[34:]],
    }


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("reason", refusals())
def test_refused_images_are_refused_before_training(reason):
    """The conversion, which need not decode, refuses the same files as the decoder."""
    for data in refusals()[reason]:
        with pytest.raises(DecodeError, match=reason):
            decode_image(data)
        for whole in (False, True):
            with pytest.raises(ImageError, match=reason):
                inspect(data, whole)


def test_the_largest_image_is_accepted():
    assert inspect(png_of_size(16384, 16384)).width == 16384


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("largest, bits", [(0, 0), (255, 8), (4095, 12), (4096, 13), (65535, 16)])
def test_bits_that_a_16_bit_image_uses(kind, largest, bits):
    values = np.linspace(0, largest, 20 * 30).astype(np.uint16).reshape(20, 30)
    assert inspect(encoded(kind, image=Image.fromarray(values))).bits == bits
    assert inspect(encoded(kind)).bits is None


@pytest.mark.parametrize("orientation, size, rule, stored, support", [
    (6, (64, 96), "auto", False, "turned"), (6, (96, 64), "auto", True, "stored"), (6, (None, None), "auto", False, "no size"),
    (6, (50, 50), "auto", False, "neither"), (3, (96, 64), "auto", False, "both"), (6, (96, 64), "apply", False, "stored"),
    (6, (64, 96), "ignore", True, "turned"), (1, (64, 96), "ignore", False, ""), (1, (64, 96), "auto", False, "")])
def test_the_annotated_size_decides_the_orientation(orientation, size, rule, stored, support):
    """The image is stored as 96x64."""
    info = inspect(encoded("JPEG", orientation, image=PICTURE.resize((96, 64))))
    width, height = size
    frame = choose_frame(info, height, width, rule)
    assert frame.stored == stored and support in frame.support
    assert (frame.info.width, frame.info.height) == ((64, 96) if orientation == 6 and not stored else (96, 64))
