"""Images, folders and videos as frames, and drawn frames as files."""
import re
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from faster_rcnn.src.model_utils.config import InputError
from faster_rcnn.src.model_utils.data.decoding import SUFFIXES
from faster_rcnn.src.model_utils.inference.media import Frame, Images, ImageWriter, Video, open_input, read_ahead, writer_of


def random_image(height=24, width=32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A folder with two images, one of them in a subfolder, a broken image, an empty image and a text file."""
    root = tmp_path / "my pictures"
    (root / "sub").mkdir(parents=True)
    cv2.imwrite(str(root / "b.PNG"), random_image())
    cv2.imwrite(str(root / "sub" / "a.jpg"), random_image())
    (root / "broken.jpg").write_bytes(b"no picture")
    (root / "empty.png").write_bytes(b"")
    (root / "notes.txt").write_text("x")
    return root


def make_video(path, frames=7, size=(32, 24)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 30 * i, np.uint8))
    writer.release()
    return path


def test_a_folder_yields_its_images_and_reports_unreadable_ones(folder):
    source = open_input(folder, folder / "out")
    frames = list(source)
    assert source.total == 4
    assert [frame.file_name for frame in frames] == ["b.PNG", "broken.jpg", "empty.png", "sub/a.jpg"]
    assert [frame.image_id for frame in frames] == [1, 2, 3, 4]
    assert [frame.image is None for frame in frames] == [False, True, True, False]
    assert "not an image" in frames[1].problem and np.array_equal(frames[0].image, random_image())


def test_a_folder_yields_every_decodable_format(repo_dir, tmp_path):
    kinds = {".jfif": "JPEG", ".jp2": "JPEG2000", ".TIFF": "TIFF"}
    for suffix, kind in kinds.items():
        Image.fromarray(random_image()).save(tmp_path / f"a{suffix}", kind)
    frames = list(open_input(tmp_path, tmp_path / "out"))
    assert {frame.file_name for frame in frames} == {f"a{suffix}" for suffix in kinds}
    assert all(frame.image.shape == (24, 32, 3) for frame in frames)
    # These programs repeat the list of suffixes, which must be the same.
    for name in ("faster_rcnn/src/split_data.py", "refinedet/src/split_data.py", "ascend310_infer/src/files.cc"):
        listed = re.search(r"(?:EXTENSIONS|kEndings) = [({](.*?)[)}]", (repo_dir / name).read_text(), re.DOTALL)[1]
        assert sorted(re.findall(r'"(.+?)"', listed)) == sorted(SUFFIXES)


def test_numbers_in_file_names_are_the_ids(tmp_path):
    files = [tmp_path / name for name in ("000000000139.jpg", "42.jpg")]
    assert list(Images(tmp_path, files)._ids) == [139, 42]
    assert list(Images(tmp_path, [*files, tmp_path / "0042.png"])._ids) == [1, 2, 3]      # 42 is not unique


def test_drawings_of_an_earlier_run_are_not_read(folder):
    writer = ImageWriter(folder)
    for frame in open_input(folder, folder):
        if frame.image is not None:
            writer.write(frame, frame.image)
    assert sorted(path.name for path in (folder / "drawn").rglob("*.*")) == ["a.jpg", "b.PNG"]
    assert open_input(folder, folder).total == 4
    assert open_input(folder, folder / "elsewhere").total == 6


def test_a_single_image_may_have_any_name(tmp_path):
    encoded = cv2.imencode(".jpg", random_image())[1].tobytes()
    (tmp_path / "photo").write_bytes(encoded)
    (frame,) = open_input(tmp_path / "photo", tmp_path)
    assert frame.file_name == "photo" and frame.image.shape == (24, 32, 3)
    ImageWriter(tmp_path / "o").write(frame, frame.image)
    assert (tmp_path / "o" / "drawn" / "photo.jpg").is_file()


def test_a_gif_is_an_image_or_a_video(tmp_path):
    frames = [Image.fromarray(np.full((24, 32, 3), value, np.uint8)) for value in (0, 100, 200)]
    frames[1].save(tmp_path / "still.gif")
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (still,) = open_input(tmp_path / "still.gif", tmp_path)
    assert still.image[5, 5].tolist() == [100] * 3
    moving = open_input(tmp_path / "moving.gif", tmp_path)
    assert isinstance(moving, Video) and [round(frame.image.mean(), -1) for frame in moving] == [0, 100, 200]
    assert [frame.image.mean() for frame in open_input(tmp_path, tmp_path / "out")] == [0, 100]     # in a folder, only first frames


@pytest.mark.parametrize("suffix", ["gif", "avif", "tga"])
def test_formats_that_opencv_cannot_write_are_drawn_as_jpeg(tmp_path, suffix):
    Image.fromarray(random_image()).save(tmp_path / f"a.{suffix}")
    (frame,) = open_input(tmp_path, tmp_path / "out")
    ImageWriter(tmp_path / "out").write(frame, frame.image)
    assert (tmp_path / "out" / "drawn" / f"a.{suffix}.jpg").is_file()


@pytest.mark.parametrize("upright", [True, False])
def test_exif_orientation_is_applied_on_request(tmp_path, upright):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(random_image()).save(tmp_path / "a.jpg", exif=exif)
    (frame,) = open_input(tmp_path, tmp_path / "out", upright)
    assert frame.image.shape == ((32, 24, 3) if upright else (24, 32, 3))


@pytest.mark.parametrize("name", ["clip.avi", "clip"])
def test_a_video_yields_numbered_frames_with_times(tmp_path, name):
    make_video(tmp_path / "clip.avi").rename(tmp_path / name)
    source = open_input(tmp_path / name, tmp_path)
    assert isinstance(source, Video) and source.total == 7 and source.rate == 12.5
    frames = list(source)
    assert [frame.where for frame in frames] == [{"frame": i, "time": round(i * 0.08, 4)} for i in range(7)]
    assert [round(frame.image.mean() / 30) for frame in frames] == list(range(7))


def test_a_drawn_video_has_the_frames_of_the_original(tmp_path):
    source = open_input(make_video(tmp_path / "a b.avi"), tmp_path)
    writer = writer_of(source, tmp_path / "out")
    for frame in source:
        writer.write(frame, frame.image)
    writer.finish()
    writer.close()
    assert [path.name for path in (tmp_path / "out" / "drawn").iterdir()] == ["a b.mp4"]
    written = Video(tmp_path / "out" / "drawn" / "a b.mp4")
    assert [round(frame.image.mean() / 30) for frame in written] == list(range(7)) and written.rate == 12.5


def test_invalid_inputs_are_reported(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    (tmp_path / "nothing").mkdir()
    cases = {"": "input is required", tmp_path / "absent": "no such file or folder",
             tmp_path / "nothing": "no images in", tmp_path / "a.mp4": "neither an image nor a video"}
    for path, words in cases.items():
        with pytest.raises(InputError, match=words):
            open_input(path, tmp_path)


def test_an_image_that_cannot_be_encoded_is_an_error(tmp_path):
    with pytest.raises((OSError, cv2.error)):
        ImageWriter(tmp_path).write(Frame(1, "a.jpg"), np.zeros((0, 5, 3), np.uint8))


def test_read_ahead_keeps_order_and_is_bounded():
    started = []

    def work(item):
        started.append(item)
        return item * 10

    results = read_ahead(range(100), work, depth=3)
    assert next(results) == 0
    time.sleep(0.3)
    assert len(started) <= 6        # one taken, three queued, one waiting to be queued
    assert list(results) == [i * 10 for i in range(1, 100)]


def test_read_ahead_passes_errors_on_and_ends_its_thread():
    def work(item):
        if item == 2:
            raise KeyError("two")
        return item

    before = threading.active_count()
    results = read_ahead(range(5), work, depth=1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(results)
    results = read_ahead(range(1000), lambda item: item, depth=1)
    next(results)
    results.close()                 # abandoned half-way
    assert threading.active_count() <= before
