"""Results are written completely or the old file stays. Names of files and classes cannot control a terminal or a chart."""
import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import utils.files
from faster_rcnn.src.model_utils.evaluation.coco_scores import FIGURES
from faster_rcnn.src.model_utils.files import WriteError, printable, replacing, write_text
from utils.hccl_tools import rank_table
from utils.mindrecord import errors, manifest
from utils.report.page import write_page

MODELS = ("faster_rcnn", "mask_rcnn", "refinedet")
HOSTILE = ["$\\frac$", "_hidden", "lone \udc80", "esc \x1b[2J\x07", "猫 cat", "a\nb"]


@contextlib.contextmanager
def full_disk(size: int = 20):
    """Limit files to `size` bytes."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def killed(work) -> None:
    """Call `work` in a child process and assert that SIGKILL ends it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def part(model: str, name: str):
    return importlib.import_module(f"{model}.src.{name}")


def scores_of(model: str, names=("cat",)):
    precision = np.ones((10, 101, len(names)))
    per_class = {name: {"AP": 0.5, "AP50": 0.5, "objects": 3} for name in names}
    scores = part(model, "model_utils.evaluation.coco_scores").Scores
    return [scores("bbox", {row[0]: 0.5 for row in FIGURES}, per_class, 5, 9, [], precision)]


# The helper

def test_a_file_is_replaced_when_complete(tmp_path):
    path = tmp_path / "new" / ("n" * 240 + ".json")
    for text in ("one", "two"):
        write_text(path, text)
        assert path.read_text() == text and list(path.parent.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "two" and list(path.parent.iterdir()) == [path]


def test_links_and_devices_are_kept(tmp_path):
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(tmp_path / "target")
    write_text(link, "x")
    assert link.is_symlink() and (tmp_path / "target").read_text() == "x"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "through")
    assert os.read(reader, 10) == b"through" and pipe.is_fifo()
    os.close(reader)
    reader, writer = os.pipe()
    write_text(Path(f"/proc/self/fd/{writer}"), "as /dev/stdout")
    assert os.read(reader, 20) == b"as /dev/stdout"
    os.close(reader)
    os.close(writer)


def test_a_folder_in_place_of_a_file_and_the_reverse(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path, tmp_path / "file" / "x.json"):
        with pytest.raises(WriteError) as caught:
            write_text(path, "x")
        assert str(caught.value).startswith(f"{path}: cannot be written: ")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_printable():
    assert printable("猫 é \u3000 \u200d") == "猫 é \u3000 \u200d"
    assert printable("a\x1b[2J\r\n\x9b\u202e\u2028\udc80\0") == r"a\x1b[2J\r\n\x9b\u202e\u2028\udc80\x00"


# Writers of results

def torch_file(path):
    part("faster_rcnn", "FasterRcnn.conversion.torch_writer").write_torch({"a": np.zeros(99, np.float32)}, path)


def detections(path):
    columns = np.arange(3), np.ones(3, np.int64), np.ones(3), np.ones((3, 4))
    part("faster_rcnn", "model_utils.evaluation.detections").Detections(*columns).save(path)


def table(path):
    rank_table.write_table(rank_table.new_table([rank_table.Machine("10.0.0.1", [(0, "10.1.0.1")])]), path.parent, path.name)


def picture(path):
    media = part("faster_rcnn", "model_utils.inference.media")
    media.ImageWriter(path.parent.parent).write(media.Frame(1, path.name), np.zeros((9, 9, 3), np.uint8))


def from_config(module: str, function: str, key: str):
    def write(path):
        config = part("faster_rcnn", "model_utils.config").load_config(overrides={key: str(path)})
        sizes = (96, 128) if key == "aipp_path" else ()
        getattr(part("faster_rcnn", f"model_utils.{module}"), function)(config, *sizes)
    return write


def from_scores(module: str, function: str):
    def write(path):
        scores = scores_of("faster_rcnn")
        call = getattr(part("faster_rcnn", f"model_utils.evaluation.{module}"), function)
        call(path, scores) if function == "write_metrics" else call(scores[0], path)
    return write


def saved_config(path):
    part("faster_rcnn", "model_utils.config").save_config(SimpleNamespace(to_dict=lambda: {"a": list(range(99))}), path)


def page(path):
    values = {"title": "a", "facts": {}, "notes": ["b" * 99], "masks": False, "images": 1, "shown": 1}
    write_page(path, "evaluation", {}, **values)


WRITERS = {
    "detections.json": detections,
    "report.html": page,
    "metrics.json": from_scores("report", "write_metrics"),
    "pr_curves.png": from_scores("plots", "plot_pr_curves"),
    "config.yaml": saved_config,
    "net.aipp": from_config("inference.aipp", "write_aipp", "aipp_path"),
    "settings": from_config("evaluation.program", "write_settings", "settings_path"),
    "w.ckpt": lambda path: part("faster_rcnn", "model_utils.weights.writer").write_weights({"a": np.zeros(99, np.float32)}, path),
    "w.pth": torch_file,
    "drawn.png": picture,
    "manifest.json": lambda path: manifest.write_manifest(path.parent, {"files": ["a" * 99]}),
    "table.json": table,
}


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk_keeps_the_old_file(name, tmp_path):
    path = tmp_path / "drawn" / name
    path.parent.mkdir()
    path.write_text("of an earlier run")
    with full_disk(), pytest.raises((OSError, ValueError)) as caught:
        WRITERS[name](path)
    assert f"{path}" in str(caught.value) and "cannot be written" in str(caught.value) and "too large" in str(caught.value)
    assert path.read_text() == "of an earlier run" and list(path.parent.iterdir()) == [path]
    WRITERS[name](path)
    assert path.read_bytes()[:17] != b"of an earlier run" and list(path.parent.iterdir()) == [path]


def test_kill_while_results_are_written_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "detections.json"
    detections(path)
    before = path.read_bytes()
    writer = part("faster_rcnn", "model_utils.evaluation.results_writer").ResultsWriter
    monkeypatch.setattr(writer, "close", lambda self: kill_self())
    killed(lambda: detections(path))
    assert path.read_bytes() == before


# Figures before drawings

def report(model: str, names, output, page=False):
    config = SimpleNamespace(to_dict=lambda: {"coco_classes": list(names)}, report=page)
    return part(model, "model_utils.evaluation.report").report(scores_of(model, names), {}, config, output, 1.0)


@pytest.mark.parametrize("model", MODELS)
def test_hostile_class_names_are_scored_written_and_drawn(model, tmp_path, capsys):
    text = report(model, HOSTILE, tmp_path)
    shown = capsys.readouterr()
    assert shown.out == text == (tmp_path / "eval.log").read_text(encoding="utf-8") and shown.err == ""
    assert all(line.isprintable() for line in text.splitlines()) and r"esc \x1b[2J\x07  " in text and r"lone \udc80  " in text
    metrics = json.loads((tmp_path / "metrics.json").read_bytes())
    assert list(metrics["per_class"]) == HOSTILE == metrics["config"]["coco_classes"]
    assert cv2.imread(str(tmp_path / "pr_curves.png")) is not None


def test_names_in_a_legend_are_text(monkeypatch, tmp_path):
    plots, legends = part("faster_rcnn", "model_utils.evaluation.plots"), []

    def keep(figure, png):
        figure.canvas.draw()
        legends.extend(text.get_text() for text in figure.axes[1].get_legend().get_texts())

    monkeypatch.setattr(plots, "_save", keep)
    plots.plot_pr_curves(scores_of("faster_rcnn", HOSTILE)[0], tmp_path / "x.png")
    assert [text.strip().split("   ")[0] for text in legends] == [
        r"\$\frac\$", "_hidden", r"lone \udc80", r"esc \x1b[2J\x07", "猫 cat", r"a\nb", "mean"]


def test_a_fault_in_drawing_loses_no_figure(monkeypatch, tmp_path, capsys):
    def fails(*_):
        raise RuntimeError("of the library\x1b[2J")

    for name in ("plot_pr_curves", "write_html"):
        monkeypatch.setattr(part("refinedet", "model_utils.evaluation.report"), name, fails)
    text = report("refinedet", ["cat"], tmp_path, page=True)
    shown = capsys.readouterr()
    assert shown.out == text and shown.err == "".join(
        f"warning: {tmp_path}/{name}: not drawn: RuntimeError: of the library\\x1b[2J\n"
        for name in ("pr_curves.png", "report.html"))
    assert json.loads((tmp_path / "metrics.json").read_bytes())["bbox"]["AP"] == 0.5


def test_figures_are_printed_even_if_the_disk_is_full(tmp_path, capsys):
    with full_disk(), pytest.raises(OSError, match=r"metrics\.json: cannot be written"):
        report("faster_rcnn", ["cat"], tmp_path)
    assert "maxDets=100 ] = 0.500\n" in capsys.readouterr().out and list(tmp_path.iterdir()) == []


# infer.py

@pytest.fixture(params=MODELS)
def growing(request, tmp_path):
    """Return growing(after): it infers three images, one result each, and calls `after` after the second."""
    infer = part(request.param, "model_utils.inference.infer")
    (tmp_path / "detections.json").write_text("[]")

    def run(after=lambda: None):
        detector = SimpleNamespace(read=0, unreadable=0, last="")
        with infer.growing_results(tmp_path, SimpleNamespace(total=3), detector) as results:
            for number in range(3):
                results.add([{"image_id": number}])
                detector.read, detector.last = number + 1, f"{number}\x1b.jpg"
                if number == 1:
                    after()

    run.last_words = infer.last_words
    return run


def results(path) -> list:
    return [item["image_id"] for item in json.loads(path.read_bytes())]


def test_a_killed_inference_is_marked_and_keeps_earlier_results(growing, tmp_path, capsys):
    final, partial = tmp_path / "detections.json", tmp_path / "detections.partial.json"
    killed(lambda: growing(kill_self))
    assert final.read_text() == "[]" and results(partial) == [0, 1]
    growing()
    assert results(final) == [0, 1, 2] and list(tmp_path.iterdir()) == [final]


def test_a_stopped_inference_says_what_is_missing(growing, tmp_path, capsys):
    def stop():
        words.extend(word() for word in growing.last_words)     # what a signal within MindSpore still prints
        raise KeyboardInterrupt

    words = []
    with pytest.raises(KeyboardInterrupt):
        growing(stop)
    shown = capsys.readouterr().err
    assert f"{words[0]}\n" == shown and not growing.last_words
    assert "detections.json: not written: 2 of 3 images are done, the last is 1\\x1b.jpg; " in shown
    assert (tmp_path / "detections.json").read_text() == "[]" and results(tmp_path / "detections.partial.json") == [0, 1]


def test_a_full_disk_ends_inference_with_whole_results(growing, tmp_path, capsys):
    with full_disk(50), pytest.raises(OSError, match=r"detections\.partial\.json: cannot be written"):
        growing()
    assert (tmp_path / "detections.json").read_text() == "[]" and results(tmp_path / "detections.partial.json") == [0, 1]
    assert "2 of 3 images are done" in capsys.readouterr().err


# Messages

@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("error", "line"), [
    (OSError(28, "No space left on device"), "No space left on device"),
    (PermissionError(13, "Permission denied", "a\x1b.json"), "a\\x1b.json: Permission denied"),
    (IsADirectoryError(21, "Is a directory", "a", None, "b"), "b: Is a directory"),
    (utils.files.WriteError(28, "No space left on device", "o.json"), "o.json: cannot be written: No space left on device")])
def test_a_system_error_is_one_line(model, error, line, monkeypatch, capsys):
    def main():
        raise error

    monkeypatch.setattr(sys, "argv", ["/x/infer.py"])
    with pytest.raises(SystemExit) as ended:
        part(model, "model_utils.config").run_main(main)
    assert ended.value.code == 2 and capsys.readouterr().err == f"infer.py: error: {line}\n"


def test_problems_of_a_data_set_and_rank_tables_are_one_printable_line(capsys):
    problem = errors.Problem("a\x1b[2J.jpg", "", "\udc80 \n\x9b", "kind")
    assert str(problem) == r"a\x1b[2J.jpg: \udc80 \x9b"

    def fails():
        raise rank_table.TableError("server \x1b[2J")

    assert rank_table.guard("hccl", fails) == 2 and capsys.readouterr().err == "hccl: error: server \\x1b[2J\n"
