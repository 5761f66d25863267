"""The scripts that build, run and score the C++ program of ascend310_infer: their arguments and error messages."""
import json
import os
import subprocess

import pytest

from tests.cpp_program import called, fault, run_python


@pytest.fixture
def caller(tmp_path):
    """A folder with one file or folder of each kind that the scripts take."""
    for name in ("a net.mindir", "a net.air", "truth.json"):
        (tmp_path / name).touch()
    (tmp_path / "some pictures").mkdir()
    return tmp_path


@pytest.fixture
def fake_lite(tmp_path):
    """A fake MS_LITE_HOME with the file that the scripts look for."""
    header = tmp_path / "lite" / "runtime" / "include" / "api" / "model.h"
    header.parent.mkdir(parents=True)
    header.touch()
    return tmp_path / "lite"


@pytest.mark.parametrize(("words", "message"), [
    ("run_infer_310.sh|gone.mindir|some pictures|truth.json", "MINDIR_PATH: no such file: gone.mindir"),
    ("run_infer_310.sh|a net.air|some pictures|truth.json",
     "MINDIR_PATH: expected a .mindir file, as export.py --file_format=MINDIR writes it, got 'a net.air'"),
    ("run_infer_310.sh|a net.mindir|nowhere|truth.json", "DATA_PATH: no such folder: nowhere"),
    ("run_infer_310.sh|a net.mindir|some pictures|gone.json", "ANN_FILE: no such file: gone.json"),
    ("run_infer_310.sh|a net.mindir|some pictures", "DATA_PATH: some pictures lacks val2017/ or annotations/"),
    ("run_infer_310.sh|a net.mindir|some pictures|truth.json|64", "IMAGE_HEIGHT is required after IMAGE_WIDTH"),
    ("run_infer_310.sh|a net.mindir|some pictures|truth.json|none", "DEVICE_ID: expected a number, got 'none'"),
    ("run_infer_310.sh|a net.mindir|some pictures|truth.json|128|x", "IMAGE_HEIGHT: expected a number, got 'x'"),
    ("run_infer_cpp.sh|a net.mindir|some pictures|truth.json|TPU", "DEVICE_TYPE: expected Ascend or CPU, got 'TPU'"),
    ("run_infer_cpp.sh|a net.mindir|some pictures|truth.json|GPU", "DEVICE_TYPE: the C++ program supports Ascend and CPU; "
     "to run the file on a GPU, use Python: eval.py --mindir_path=FILE --device_target=GPU, or infer.py"),
    ("run_infer_cpp.sh|a net.mindir|some pictures|truth.json|CPU|128", "IMAGE_HEIGHT is required after IMAGE_WIDTH"),
    ("run_infer_cpp.sh|a net.mindir|some pictures|truth.json|CPU|128|64|yes", "KEEP_RATIO: expected true or false, got 'yes'"),
])
def test_faults_of_the_scripts(repo_dir, caller, words, message):
    name, *rest = words.split("|")
    done = called(repo_dir, "refinedet", [name, *rest], caller, caller, caller, DRY_RUN="1")
    assert fault(done).startswith(f"{name}: error: {message}") and len(done.stderr.splitlines()) == 1


def test_results_of_an_earlier_run_stay(repo_dir, cpp_lite, caller):
    (caller / "infer_result").mkdir()
    (caller / "infer_result" / "results.jsonl").touch()
    command = ["run_infer_cpp.sh", "a net.mindir", "some pictures", "truth.json", "CPU"]
    done = called(repo_dir, "refinedet", command, caller, cpp_lite, caller, DRY_RUN="1")
    assert "--output_path=./infer_result_2/results.jsonl" in done.stdout, done.stderr


def test_broken_annotations_are_reported_before_the_build(repo_dir, cpp_lite, caller):
    command = ["run_infer_cpp.sh", "a net.mindir", "some pictures", "truth.json", "CPU"]
    done = called(repo_dir, "refinedet", command, caller, cpp_lite, caller / "a build")
    assert "truth.json: the file is empty" in fault(done) and not (caller / "a build").exists()


def test_names_of_any_bytes_are_scored(cpp_coco, repo_dir, tmp_path):
    """File names need not be UTF-8."""
    found = {"image_info": [64, 64, 1, 1, 64, 64], "boxes": [], "scores": [], "labels": []}
    lines = [json.dumps({"file_name": name, **found}) for name in ("lat?.jpg", "000000900001.png")]
    (tmp_path / "results.jsonl").write_bytes("\n".join(lines).encode().replace(b"?", b"\xe9"))
    done = run_python(repo_dir / "refinedet" / "postprocess.py", "--results_path=results.jsonl", "--output_path=scores",
                      f"--coco_root={cpp_coco}", cwd=tmp_path)
    assert "1 image without annotations, not scored; the first: lat\\udce9.jpg\n" in done.stderr


@pytest.mark.parametrize(("home", "message"), [
    ("", "MS_LITE_HOME is not set"), ("/no/where", "MS_LITE_HOME: /no/where is not a MindSpore Lite folder")])
def test_a_missing_sdk(repo_dir, caller, home, message):
    command = ["run_infer_cpp.sh", "a net.mindir", "some pictures", "truth.json", "CPU"]
    assert message in fault(called(repo_dir, "refinedet", command, caller, home, caller))


@pytest.mark.parametrize("model", ["faster_rcnn", "mask_rcnn", "refinedet"])
@pytest.mark.parametrize("home", ["", "/no/where"])
def test_a_dry_run_needs_no_sdk(repo_dir, caller, model, home):
    command = ["run_infer_310.sh", "a net.mindir", "some pictures", "truth.json"]
    done = called(repo_dir, model, command, caller, home, caller, DRY_RUN="1", CXX="no-compiler")
    assert (done.returncode, done.stderr) == (0, "") and f"-DMS_LITE_HOME={home or 'MS_LITE_HOME'}\n" in done.stdout


@pytest.mark.parametrize(("words", "device", "size"), [
    ("truth.json", 0, ""), ("truth.json|3", 3, ""), ("truth.json|63", 63, ""),
    ("truth.json|128|64", 0, " --img_width=128 --img_height=64"), ("truth.json|128|64|3", 3, " --img_width=128 --img_height=64")])
def test_arguments_of_run_infer_310(repo_dir, fake_lite, caller, words, device, size):
    """The old READMEs pass a device, a size, or a size and a device."""
    command = ["run_infer_310.sh", "a net.mindir", "some pictures", *words.split("|")]
    done = called(repo_dir, "faster_rcnn", command, caller, fake_lite, caller, DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    settings, _, _, run, _, _ = done.stdout.splitlines()
    assert settings.endswith(f"--val_anno_path=truth.json{size}") and run.endswith(f"--device_type=Ascend --device_id={device}")


def test_a_failed_build_is_one_line(repo_dir, cpp_lite, cpp_coco, caller):
    """The line is the compiler's message; the rest is in build.log."""
    compiler = caller / "c++"
    compiler.write_text("#!/bin/sh\necho 'c++: fatal error: no input is liked' >&2\nexit 1\n")
    compiler.chmod(0o755)
    command = ["run_infer_cpp.sh", "a net.mindir", cpp_coco / "val2017", cpp_coco / "annotations" / "instances_val2017.json", "CPU"]
    done = called(repo_dir, "refinedet", command, caller, cpp_lite, caller / "a build", CXX=str(compiler))
    assert len(done.stderr.splitlines()) == 1
    assert fault(done) == ("run_infer_cpp.sh: error: building ascend310_infer failed (status 1): "
                           "c++: fatal error: no input is liked: see ./infer_result/build.log")


def test_the_build_uses_the_folder_of_lite_that_is_set(cpp_lite, repo_dir, tmp_path):
    """MS_LITE_HOME may be relative, and a later value replaces it. A folder given by -D stays."""
    for name in ("first", "second", "third"):
        (tmp_path / name).symlink_to(cpp_lite)
    for name, inherited, flags in (("first", "first", []), ("second", "second", []),
                                   ("third", "second", [f"-DMS_LITE_HOME={tmp_path / 'third'}"]), ("third", "first", [])):
        done = subprocess.run(["cmake", "-S", str(repo_dir / "ascend310_infer"), "-B", "built", *flags], cwd=tmp_path, text=True,
                              capture_output=True, timeout=60, check=False,
                              env={**os.environ, "PWD": str(tmp_path), "MS_LITE_HOME": inherited})
        assert done.returncode == 0, done.stderr
        cache = (tmp_path / "built" / "CMakeCache.txt").read_text()
        assert f"LITE_LIBRARY:FILEPATH={tmp_path / name}/runtime/lib/libmindspore-lite.so\n" in cache


def test_dry_run_prints_the_steps(repo_dir, fake_lite, caller):
    command = ["run_infer_cpp.sh", "a net.mindir", "some pictures", "truth.json", "Ascend", "128", "64", "true", "3",
               "--num_classes=4", "--threads=3", "--readers=5"]
    done = called(repo_dir, "refinedet", command, caller, fake_lite, caller / "a build", DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    settings, configure, make, run, score, copy = done.stdout.splitlines()
    sizes = "--img_width=128 --img_height=64 --keep_ratio=True --num_classes=4"
    written = "postprocess.py --settings_path=./infer_result/settings.txt --image_dir=some\\ pictures --anno_path=truth.json"
    assert written in settings and sizes in settings
    assert configure.startswith("cmake -S ") and make.startswith("cmake --build ")
    assert run.endswith("--mindir_path=a\\ net.mindir --settings_path=./infer_result/settings.txt --input_path=some\\ pictures "
                        "--output_path=./infer_result/results.jsonl --device_type=Ascend --device_id=3 --threads=3 --readers=5")
    assert "--threads" not in settings + score and make.endswith(" --parallel")
    assert sizes in score and "--results_path=./infer_result/results.jsonl" in score
    assert copy.endswith("./infer_result/acc.log ./acc.log")
    assert not (caller / "infer_result").exists()
