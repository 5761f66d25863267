"""check.py, convert.py and the diagnosis of data sets."""
import json

import numpy as np
import pytest

from tests.unit.mindrecord_samples import annotation, coco_set, cut, draw, read_back, txt_set
from utils.mindrecord.doctor import diagnose
from utils.mindrecord.image_files import ImageError, inspect


@pytest.fixture
def command(run_command, repo_dir, tmp_path):
    """command("check" or "convert", *options): run it by path or as a module, in a folder with a space in its name."""
    cwd = tmp_path / "some where"
    cwd.mkdir()

    def run(name, *options, module=False):
        start = ["-m", f"utils.mindrecord.{name}"] if module else [repo_dir / "utils" / "mindrecord" / f"{name}.py"]
        return run_command(["python", *start, *options], cwd=cwd, env={"PYTHONPATH": repo_dir if module else None})

    return run


def options(source, paths) -> list:
    return [f"--source={source}", f"--image_dir={paths[0]}", f"--anno_path={paths[1]}"]


def test_bccd(command, data_dir):
    folder = data_dir / "bccd"
    run = command("check", *options("voc", (folder / "JPEGImages", folder / "Annotations")))
    lines = run.stdout.splitlines()
    assert run.returncode == 1 and run.stderr == ""
    assert lines[:2] == [
        f"{folder}/Annotations/BloodImage_00338.xml: object 13: box (504, 337, 504, 337) has no area",
        f"{folder}/Annotations/BloodImage_00343.xml: object 4: box (181, 329, 181, 329) has no area"]
    assert lines[2].startswith("images: 364 usable of 364") and "        4153  RBC" in lines
    assert lines[-2:] == ["problems: 2", "           2  box without area"]


def test_coco_mini_is_clean(command, data_dir):
    folder = data_dir / "coco_mini"
    paths = folder / "val2017", folder / "annotations" / "instances_val2017.json"
    run = command("check", *options("coco", paths), module=True)
    assert run.returncode == 0 and run.stdout.splitlines()[-1] == "problems: none"
    assert "objects: 619, and 5 crowd regions" in run.stdout


def test_four_channels_are_no_problem(data_dir):
    """An unmodified data set: the only problems are boxes that extend one pixel too far."""
    folder = data_dir / "facemask_png_sample"
    found = diagnose("voc", folder / "images", folder / "annotations", progress=False)
    assert {problem.kind for problem in found.problems} == {"box partly outside the image"} and found.usable == 16
    assert inspect(next((folder / "images").iterdir()).read_bytes()).channels == 4


def test_ids_as_text_are_no_problem(command, data_dir):
    """A public file: the id of the image is text, and most annotations refer to it by number."""
    path = data_dir / "coco_known_answer" / "gt_ignore_test.json"
    run = command("check", *options("coco", (data_dir / "coco_mini" / "val2017", path)))
    assert run.stdout.splitlines()[0].endswith("000000002299.jpg: no such image in " + str(data_dir / "coco_mini" / "val2017"))
    assert run.returncode == 1 and "problems: 1\n" in run.stdout and run.stderr == ""


def test_all_problems_are_listed(command, tmp_path):
    """All malformed lines, bad boxes and bad images are reported, not only the first."""
    lines = "a.jpg 1,1,5,5,1 1,2,3,4", "b.jpg 5,5,5,9,1 50,5,60,9,1 1,1,50,9,1 1,1,9,9,9", "c.jpg 1", "half.jpg"
    paths = txt_set(tmp_path, "\n".join(lines), ("a.jpg", "b.jpg", "half.jpg"))
    cut(paths[0] / "half.jpg", 0.6)
    run = command("check", *options("other", paths), "--classes=cat")
    image_dir, path = paths
    assert run.returncode == 1 and run.stderr == ""
    assert [line.split(", expected")[0] for line in run.stdout.splitlines() if line.startswith("/")] == [
        f"{path}:1: box 2 '1,2,3,4' has 4 numbers", f"{path}:3: box 1 '1' has 1 number",
        f"{path}:2: box 1: box (5, 5, 5, 9) has no area", f"{path}:2: box 4: class 9 is not one of the classes (1 to 1)",
        f"{path}:2: box 2: box (50, 5, 60, 9) lies outside the image b.jpg of 40x30",
        f"{path}:2: box 3: box (1, 1, 50, 9) lies partly outside the image b.jpg of 40x30",
        f"{path}:3: c.jpg: no such image in {image_dir}",
        next(line for line in run.stdout.splitlines() if "half.jpg: " in line)]
    assert "problems: 8" in run.stdout


def test_summary_matches_numpy(tmp_path):
    sizes = [[4, 2], [8, 8], [16, 4], [6, 12]]
    paths = coco_set(tmp_path, [annotation(k, 1 + k // 3, [1, 1, *size], 3) for k, size in enumerate(sizes)]
                     + [annotation(9, 3, [0, 0, 40, 30], 1, iscrowd=1)])
    found = diagnose("coco", *paths, workers=2, progress=False)
    assert (found.images, found.usable, found.empty, found.crowds) == (3, 3, 1, 1)
    lines = "\n".join(found.lines())
    assert "           4  dog" in lines and "           0  cat" in lines
    for name, values in (("box width", [4, 8, 16, 6]), ("box shape, h / w", [0.5, 1, 0.25, 2])):
        line = next(line for line in lines.splitlines() if name in line)
        want = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
        np.testing.assert_allclose([float(word) for word in line.split(name)[1].split()], want, atol=0.005)


def test_unreadable_annotations_are_a_problem(command, tmp_path):
    image_dir, path = coco_set(tmp_path, [])
    path.write_text('{"images": [}')
    run = command("check", *options("coco", (image_dir, path)))
    assert run.returncode == 1 and run.stdout.startswith(f"{path}:1:13: not valid JSON: ") and run.stderr == ""


@pytest.mark.parametrize("name", ["check", "convert"])
def test_wrong_usage(command, tmp_path, name):
    image_dir, path = coco_set(tmp_path, [annotation(1, 1, [1, 1, 5, 5])])
    more = [f"--output_dir={tmp_path / 'o'}"] if name == "convert" else []
    good = options("coco", (image_dir, path)) + more
    for wrong, expected in ((options("coco", (tmp_path / "no", path)) + more, "image_dir: no such folder: "),
                        (options("coco", (image_dir, tmp_path / "no")) + more, "anno_path: no such file: "),
                        (options("nolo", (image_dir, path)) + more, "--source"), (good + ["--wrong=1"], "--wrong=1"),
                        (good + ["--workers=0"], "--workers"), (good + ["--classes=@nothing"], "nothing cannot be read"),
                        (good + ["--image_set=train"],
                         "image_set: coco has no image sets; only voc, coco_files, labelme, yolo have them"),
                        (more, "--source")):
        run = command(name, *wrong)
        assert run.returncode == 2 and expected in run.stderr and "Traceback" not in run.stderr and not run.stdout
        assert run.stderr.splitlines()[-1].startswith(f"{name}.py: error: ")
    assert not (tmp_path / "o").exists()


def test_convert(command, tmp_path):
    paths = coco_set(tmp_path, [annotation(1, 2, [1, 1, 5, 5], 3), annotation(2, 3, [1, 1, 0, 5])])
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    output = tmp_path / "out put"
    call = [*options("coco", paths), f"--output_dir={output}", "--workers=2", f"--classes=@{tmp_path / 'classes.txt'}"]
    run = command("convert", *call, "--keep_empty")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0].startswith(f"{output}: 3 images, 1 object, 2 classes, 2 files, ")
    assert run.stdout.splitlines()[1:] == ["    dropped: 1 x box without area"]
    assert f"    {paths[1]}: annotation 2: box (1, 1, 1, 6) has no area" in run.stderr.splitlines()
    rows = read_back(output)
    assert len(rows) == 3 and rows[1]["labels"].tolist() == [1]
    made = json.loads((output / "manifest.json").read_text())
    for more, same in ((["--keep_empty=True"], True), (["--keep_empty", "--force"], False),
                       (["--keep_empty=False"], False)):
        run = command("convert", *call, *more, module=True)
        assert run.returncode == 0 and "RuntimeWarning" not in run.stderr
        assert (json.loads((output / "manifest.json").read_text()) == made) == same
    assert len(read_back(output)) == 1


def test_convert_reports_errors_in_one_line(command, tmp_path):
    paths = txt_set(tmp_path, "a.jpg 1,1,5,5,1 1,2,3,4\n")
    run = command("convert", *options("other", paths), f"--output_dir={tmp_path / 'o'}")
    assert run.returncode == 2 and run.stderr == (
        f"convert.py: error: {paths[1]}:1: box 2 '1,2,3,4' has 4 numbers, expected x1,y1,x2,y2,class[,crowd]\n")


@pytest.mark.filterwarnings("ignore::UserWarning")      # Pillow warns about the tags of half a TIFF file
@pytest.mark.parametrize("name, channels", [
    ("a.jpg", 1), ("a.jpg", 3), ("a.png", 1), ("a.png", 3), ("a.png", 4), ("a.bmp", 1), ("a.bmp", 3), ("a.bmp", 4),
    ("a.webp", 3), ("a.webp", 4), ("a.tiff", 1), ("a.tiff", 3), ("a.tiff", 4)])
def test_header_and_end_of_images(tmp_path, name, channels):
    data = draw(tmp_path / name, 123, 45, channels).read_bytes()
    image = inspect(data)
    assert (image.width, image.height) == (123, 45)
    for share in (0.02, 0.5, 0.97):
        with pytest.raises(ImageError):
            inspect(data[:int(len(data) * share)])


def test_jpeg_with_much_metadata(tmp_path):
    """Segments of the maximum length before the frame header, and padding between segments."""
    data = draw(tmp_path / "a.jpg", 123, 45).read_bytes()
    segment = b"\xff\xe1\xff\xff" + b"\xff\xd9" * 32766 + b"\0"
    image = inspect(data[:2] + segment * 3 + b"\xff\xff" + data[2:])
    assert (image.width, image.height, image.channels) == (123, 45, 3)
