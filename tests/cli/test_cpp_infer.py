"""The C++ program of ascend310_infer on the CPU of MindSpore Lite, compared with infer.py and eval.py."""
import json
import os
import resource
import shutil
import socket
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests import commands
from tests.cpp_program import (
    STRICT,
    called,
    check_against_python,
    fault,
    make_model,
    mutated,
    run_python,
    run_sanitized,
    some_damaged,
    write_kinds,
)

pytestmark = pytest.mark.cpp

SETTINGS = {"num_classes": 4, "img_height": 64, "img_width": 128, "pad_to": "fixed", "keep_ratio": False,
            "size_rounding": "nearest", "resize_mode": "opencv",
            "image_mean": "123.675 116.28 103.53", "image_std": "58.395 57.12 57.375", "to_rgb": True}
# Settings of a RefineDet with 80 classes.
OF_81 = {"num_classes": 81, "test_score_thr": 0.0125, "test_iou_thr": 0.45, "test_nms_pre": 40, "test_nms_total": 400,
         "test_max_per_img": 100}
SIZES = [(64, 128, False, "fixed"), (128, 192, True, "fixed"), (100, 170, True, "128x192")]


# ---------------------------------------------------------------------------------------------------- preprocessing

@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    return write_kinds(tmp_path_factory.mktemp("pictures") / "of all kinds")


def write_settings(path, **changes):
    path.write_text("".join(f"{key} {value}\n" for key, value in {**SETTINGS, **changes}.items()))
    return f"--settings_path={path}"


def dumped(program, flag, files, shape, env=None) -> tuple:
    """Return ((image, info) per file, None where the program could not read it; stderr)."""
    done = subprocess.run([str(program / "dump_input"), flag], input="".join(f"{file}\n" for file in files).encode(),
                          capture_output=True, timeout=120, check=False, env={**os.environ, **(env or {})})
    assert done.returncode == 0, done.stderr.decode()
    values, found = np.frombuffer(done.stdout, np.float32), []
    while values.size:
        count = 1 if np.isnan(values[0]) else 6 + int(np.prod(shape))
        found.append(None if count == 1 else (values[6:count].reshape(shape), values[:6]))
        values = values[count:]
    assert len(found) == len(files)
    return found, done.stderr.decode()


# mindspore-lab's preprocessing.
EXACT = {"size_rounding": "even", "scale_rule": "factor", "pad_black": True}


@pytest.mark.parametrize("mode, more", [("opencv", {}), ("area", EXACT), ("pillow", {}), ("float", {})])
def test_inputs_match_python(cpp_program, kinds, tmp_path, mode, more):
    from refinedet.src.model_utils.data.transforms import InputSize, Preprocess, decode_image

    for height, width, keep_ratio, pad_to in SIZES[bool(more):]:        # area needs keep_ratio
        size = InputSize(height, width, keep_ratio, pad_to, rounding=more.get("size_rounding", "nearest"), exact_scale=bool(more))
        preprocess = Preprocess(size, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), True, mode, bool(more))
        flag = write_settings(tmp_path / "settings.txt", img_height=height, img_width=width, keep_ratio=keep_ratio, pad_to=pad_to,
                              resize_mode=mode, **more)
        found, errors = dumped(cpp_program, flag, kinds, (3, *preprocess.size.box()))
        for file, got in zip(kinds, found):
            if got is None:
                assert file.name.startswith("half of ") and str(file) in errors
                with pytest.raises(ValueError):
                    decode_image(file.read_bytes())
                continue
            image, info = preprocess(decode_image(file.read_bytes()))
            np.testing.assert_array_equal(got[1], info, file.name)
            off = np.abs(got[0] - image).max() * 57     # in pixel values of 0 to 255
            assert off <= {"opencv": 0, "area": 1.01, "pillow": 1, "float": 0.02}[mode], (file.name, off)
    assert sum(got is None for got in found) == 2


def test_orientations_are_ignored_if_the_settings_say_so(cpp_program, kinds, tmp_path):
    flag = write_settings(tmp_path / "settings.txt", exif_orientation="ignore")
    (plain, *turned), _ = dumped(cpp_program, flag, [kinds[0].parent / f"turned {value}.jpg" for value in (1, 3, 6)], (3, 64, 128))
    for image, info in turned:
        np.testing.assert_array_equal(image, plain[0])
        np.testing.assert_array_equal(info, plain[1])


def test_damaged_images_under_sanitizers(cpp_sanitized, kinds, tmp_path):
    """Each image is read or refused, and the sanitizers report nothing, not even leaks."""
    files = []
    for source in kinds:
        for seed in range(12):
            files.append(tmp_path / f"{seed} {source.name}")
            files[-1].write_bytes(mutated(source.read_bytes(), seed))
    found, errors = dumped(cpp_sanitized, write_settings(tmp_path / "settings.txt"), files, (3, 64, 128), STRICT)
    refused = sum(item is None for item in found)
    assert 20 < refused < len(files) >= 200 and len(errors.splitlines()) == refused


def test_an_image_too_large_for_the_memory(cpp_program, tmp_path):
    """The program refuses this image and reads the next one."""
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    Image.new("1", (16384, 16384)).save(large)      # 800 MB as RGB
    Image.new("RGB", (40, 30)).save(small)
    command = ["bash", "-c", 'ulimit -v 500000; exec "$@"', "bash", str(cpp_program / "dump_input"),
               write_settings(tmp_path / "settings.txt")]
    done = subprocess.run(command, input=f"{large}\n{small}\n".encode(), capture_output=True, timeout=60,
                          check=False)
    assert done.returncode == 0 and done.stderr.decode() == f"{large}: not a PNG that can be decoded: too many pixels\n"
    assert len(done.stdout) == 4 * (1 + 6 + 3 * 64 * 128)


# ---------------------------------------------------------------------------------------------------- RefineDet

@pytest.fixture(scope="module")
def refinedet(cpp_coco, tmp_path_factory):
    """Folder with a narrow RefineDet of 80 classes, its MINDIR, and infer.py's detections/detections.json."""
    import mindspore as ms

    from refinedet.src.model_utils.config import save_config
    from tests.narrow_refinedet import narrow_config, narrow_network

    def save(folder, names):
        config = narrow_config(num_classes=81, coco_classes=names, test_max_per_img=100, test_nms_total=400, test_score_thr=0.0125)
        ms.save_checkpoint(narrow_network(config), str(folder / "narrow.ckpt"))
        save_config(config, folder / "narrow.yaml")

    folder = tmp_path_factory.mktemp("a model")
    make_model("refinedet", folder, cpp_coco, save, {"exported": "network"}, "--with_nms=False")
    return folder


def test_refinedet_finds_what_python_finds(refinedet, cpp_coco, cpp_lite, cpp_program, repo_dir, tmp_path):
    check_against_python("refinedet", refinedet, "network.mindir", cpp_coco, (cpp_lite, cpp_program), repo_dir, tmp_path)


def test_refinedet_by_run_infer_310(refinedet, cpp_coco, cpp_lite, cpp_program, repo_dir, tmp_path):
    """The old arguments work: a COCO folder and no annotation file."""
    command = ["run_infer_310.sh", refinedet / "network.mindir", cpp_coco, "0", f"--config_path={refinedet / 'narrow.yaml'}"]
    for _ in range(2):
        done = called(repo_dir, "refinedet", command, tmp_path, cpp_lite, cpp_program, DEVICE_TARGET="CPU")
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "acc.log").read_text().startswith(" Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ]")
    first, second = (tmp_path / name / "results.jsonl" for name in ("infer_result", "infer_result_2"))
    assert first.read_text() == second.read_text()


@pytest.mark.parametrize(("flags", "message"), [
    (["--img_width=256", "--img_height=64"],
     "the network expects an input of 1 x 3 x 64 x 128, the configuration gives 1 x 3 x 64 x 256: pass the --config_path and"),
    (["--device_type=GPU"], "device_type: expected Ascend or CPU, got 'GPU'"),
    (["--input_path=nowhere"], "input_path: no such folder: nowhere"),
    (["--mindir_path=gone.mindir"], "mindir_path: no such file: gone.mindir"),
    (["--output_path=/no/where.jsonl"], "output_path: /no/where.jsonl cannot be written"),
    (["--readers=0"], "readers: expected a whole number from 1 to 256, got '0'"),
    (["--readers=40000"], "readers: expected a whole number from 1 to 256, got '40000'"),
    (["--threads=40000"], "threads: expected a whole number from 1 to 256, got '40000'"),
    (["--colour=red"], "--colour: unknown option"),
])
def test_faults_of_the_program(refinedet, cpp_coco, cpp_program, tmp_path, flags, message):
    settings = tmp_path / "settings.txt"
    flag = write_settings(settings, **{**OF_81, "test_score_thr": 0.1})
    command = [cpp_program / "detect", flag, f"--mindir_path={refinedet / 'network.mindir'}",
               f"--input_path={cpp_coco / 'val2017'}",
               "--output_path=results.jsonl", "--device_type=CPU", *flags]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "GLOG_v": "3"})
    assert fault(done).startswith("detect: error: ") and message in done.stderr


@pytest.mark.parametrize(("changes", "message"), [
    ({"num_classes": 21}, "the network has 80 classes, the configuration 20"),
    ({"image_mean": "1 2"}, "image_mean: expected 3 numbers, got '1 2'"),
    ({"test_iou_thr": "half"}, "test_iou_thr: expected a number, got 'half'"),
    ({"test_iou_thr": ""}, "test_iou_thr is required: give a --settings_path with it"),
    ({"threads": "300"}, "threads: expected a whole number from 1 to 256, got '300'"),
])
def test_settings_that_do_not_fit(refinedet, cpp_coco, cpp_program, tmp_path, changes, message):
    flag = write_settings(tmp_path / "settings.txt", **{**OF_81, "test_score_thr": 0.1, **changes})
    command = [cpp_program / "detect", flag, f"--mindir_path={refinedet / 'network.mindir'}",
               f"--input_path={cpp_coco / 'val2017'}",
               f"--output_path={tmp_path / 'results.jsonl'}", "--device_type=CPU"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
    assert message in fault(done)


def test_as_many_detections_as_the_configuration_allows(refinedet, cpp_coco, cpp_program, tmp_path):
    results = tmp_path / "results.jsonl"
    many = {**OF_81, "test_score_thr": 0.001, "test_nms_total": 2000, "test_max_per_img": 200}
    command = [cpp_program / "detect", write_settings(tmp_path / "settings.txt", **many),
               f"--mindir_path={refinedet / 'network.mindir'}", f"--input_path={cpp_coco / 'val2017'}",
               f"--output_path={results}", "--device_type=CPU"]
    subprocess.run(list(map(str, command)), capture_output=True, timeout=60, check=True)
    whole = results.read_bytes()
    assert max(len(json.loads(line)["scores"]) for line in whole.splitlines()) == 200
    # The next run has no disk space: the results stay, and the leftover of a dead process is removed.
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / f".results.{socket.gethostname()}.{gone.pid}.part.jsonl").touch()
    others = tmp_path / f".results.elsewhere.{gone.pid}.part.jsonl"
    others.touch()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)))
    assert f"output_path: {results} cannot be written" in fault(done)
    assert results.read_bytes() == whole and sorted(tmp_path.iterdir()) == sorted([results, tmp_path / "settings.txt", others])


def test_names_are_printed_on_one_line(refinedet, cpp_coco, cpp_program, tmp_path):
    """Line breaks are replaced in the names of an invalid network and of an invalid image."""
    odd = tmp_path / "two\nlines\033[31m"
    odd.mkdir()
    (odd / "network.mindir").write_text("no network")
    shutil.copy(cpp_coco / "val2017" / "000000900001.png", odd)
    (odd / "no\npicture.jpg").touch()
    flag = write_settings(tmp_path / "settings.txt", **{**OF_81, "test_score_thr": 0.1})
    command = [cpp_program / "detect", flag, f"--input_path={odd}", f"--output_path={tmp_path / 'results.jsonl'}",
               "--device_type=CPU"]
    for network, status, message in ((odd / "network.mindir", 2, "two lines [31m/network.mindir: MindSpore Lite cannot load it"),
                                     (refinedet / "network.mindir", 0, "no picture.jpg: neither JPEG nor PNG (0 bytes)")):
        done = subprocess.run([*map(str, command), f"--mindir_path={network}"], capture_output=True, text=True, timeout=60,
                              check=False, env={**os.environ, "GLOG_v": "4"})
        assert done.returncode == status and message in done.stderr
        assert len(done.stderr.strip().splitlines()) == (1 if status else 2)


def test_threads_of_the_configuration(repo_dir, tmp_path):
    for threads, wanted in ((0, []), (3, ["threads 3"])):
        run_python(repo_dir / "refinedet" / "postprocess.py", "--settings_path=settings.txt", f"--runtime_num_threads={threads}",
                   cwd=tmp_path)
        assert [line for line in (tmp_path / "settings.txt").read_text().splitlines() if line.startswith("threads")] == wanted


def test_a_link_to_itself_is_no_image(refinedet, cpp_coco, cpp_program, tmp_path):
    images = tmp_path / "pictures"
    shutil.copytree(cpp_coco / "val2017", images)
    (images / "loop.jpg").symlink_to("loop.jpg")
    command = [cpp_program / "detect", write_settings(tmp_path / "settings.txt", **{**OF_81, "test_score_thr": 0.1}),
               f"--mindir_path={refinedet / 'network.mindir'}", f"--input_path={images}",
               f"--output_path={tmp_path / 'results.jsonl'}", "--device_type=CPU"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stdout.startswith("7 images, 0 not readable"), done.stderr


def test_memory_and_disk_stay_small(refinedet, cpp_coco, cpp_program, tmp_path):
    """240 images take no more memory than 30. 100 detections in each of COCO val2017's 5000 images take less than 200 MB."""
    flag = write_settings(tmp_path / "settings.txt", **OF_81)
    sources, peaks = sorted((cpp_coco / "val2017").iterdir()), []
    for count in (30, 240):
        images, results = tmp_path / f"{count} pictures", tmp_path / f"{count}.jsonl"
        images.mkdir()
        for number in range(count):
            (images / f"{number:06d}{sources[number % 7].suffix}").symlink_to(sources[number % 7])
        process = subprocess.Popen([str(cpp_program / "detect"), flag, f"--mindir_path={refinedet / 'network.mindir'}",
                                    f"--input_path={images}", f"--output_path={results}", "--device_type=CPU"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "GLOG_v": "3"})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss)
        detections = [len(json.loads(line)["scores"]) for line in results.read_text().splitlines()]
        assert len(detections) == count and min(detections) == 100
        assert results.stat().st_size / count * 5000 < 200e6
    assert peaks[1] < 1.05 * peaks[0]


def test_detection_under_sanitizers(refinedet, cpp_coco, cpp_sanitized, tmp_path):
    """Some images are damaged. The networks are intact, truncated, or have changed bytes, which may go unnoticed."""
    flag = write_settings(tmp_path / "settings.txt", **OF_81)
    data = (refinedet / "network.mindir").read_bytes()
    images = some_damaged(cpp_coco / "val2017", tmp_path / "pictures")
    path = tmp_path / "network.mindir"
    statuses = []
    for network in (data, b"", *(mutated(data, seed) for seed in range(6))):
        path.write_bytes(network)
        statuses.append(run_sanitized(cpp_sanitized, flag, f"--mindir_path={path}", f"--input_path={images}",
                                      f"--output_path={tmp_path / 'results.jsonl'}", "--device_type=CPU"))
    assert statuses[:2] == [0, 2] and set(statuses) == {0, 2}


# ---------------------------------------------------------------------------------------------------- the converter

def test_the_converter_refuses_what_it_does_not_know(refinedet, repo_dir, tmp_path):
    """A whole network contains NMS, which MindSpore Lite lacks on the CPU."""
    run_python(repo_dir / "refinedet" / "export.py", f"--config_path={refinedet / 'narrow.yaml'}",
               f"--ckpt_file={refinedet / 'narrow.ckpt'}", "--file_name=whole", cwd=tmp_path)
    (tmp_path / "text.mindir").write_text("no network")
    for source, message in (("whole.mindir", "operators that may differ in version 1: "),
                            (refinedet / "network.mindir", "it already has version 1"), ("text.mindir", "not a MINDIR"),
                            ("gone.mindir", "No such file")):
        done = commands.run(["python", repo_dir / "ascend310_infer" / "mindir_v1.py", source, "out.mindir"], tmp_path)
        assert message in fault(done)
        if source == "whole.mindir":
            assert "NMSWithMask" in done.stderr
    assert not (tmp_path / "out.mindir").exists()
