"""tests/hardware.py: its limits, its report, and a run of its checks on the CPU with a small network."""
import re

import numpy as np
import pytest

from tests import commands, hardware

BOXES = np.array([[[0, 0, 10, 10], [20, 20, 40, 30], [0, 0, 0, 0]]], np.float32)


def numbers(**changes) -> dict:
    arrays = {"losses": np.array([1.0, 2.0]), "gradient.a": np.array([3.0, 4.0]), "gradient.b": np.array([[0.5]]),
              "output.boxes": BOXES, "output.labels": np.array([[1, 2, 0]]), "output.scores": np.array([[0.9, 0.8, 0.0]]),
              "output.valid": np.array([[True, True, False]])}
    return arrays | {name.replace("_", "."): np.array(value) for name, value in changes.items()}


def test_equal_numbers_do_not_deviate():
    text = hardware.compare(numbers(), numbers(), "O0")
    assert text == ("losses 0.0e+00, gradients 0.0e+00 by direction and +0.0e+00 by length, "
                    "detections 2 / 0 / 0 matched / missing / extra, boxes 0.0e+00 px")


@pytest.mark.parametrize(("changes", "expected"), [
    ({"losses": [1.0, 2.1]}, "losses 5.0e-02"),
    ({"gradient_a": [4.0, 3.0]}, "gradients 4.0e-02 by direction"),
    ({"gradient_a": [3.1, 4.2], "gradient_b": [[0.52]]}, "by direction and +4."),
    ({"gradient_b": [[np.nan]]}, "not finite: gradient.b"),
    ({"output_boxes": BOXES + 1}, "boxes 1.0e+00 px"),
    ({"output_labels": [[1, 1, 0]]}, "detections 1 / 1 / 1"),
    ({"output_valid": [[False, False, False]]}, "detections 0 / 2 / 0"),
])
def test_deviations_fail(changes, expected):
    with pytest.raises(hardware.CheckError, match=re.escape(expected)):
        hardware.compare(numbers(**changes), numbers(), "O0")


def test_mixed_precision_has_wider_limits():
    assert "losses 5.0e-02" in hardware.compare(numbers(losses=[1.0, 2.1]), numbers(), "O2")


def test_the_most_informative_checks_run_first():
    checks = ["numbers", "speed", "resume", "devices"]
    assert hardware.plan(["refinedet", "mask_rcnn"], checks) == [
        ("numbers", "refinedet"), ("numbers", "mask_rcnn"), ("speed", "refinedet"), ("speed", "mask_rcnn"),
        ("resume", "refinedet"), ("devices", "refinedet"), ("resume", "mask_rcnn"), ("devices", "mask_rcnn")]


def test_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        hardware.parse_arguments(["--device=CPU", "--models=refinedet,yolo"])
    assert stop.value.code == 2 and "'yolo' is none of faster_rcnn, mask_rcnn, refinedet" in capsys.readouterr().err


class Forked(hardware.Checks):
    """Runs commands operator by operator, in forks of a process that has imported MindSpore."""

    def call(self, command, seconds):
        return commands.run(command, self.output, {"MS_JIT": "0"}, seconds)


def test_nothing_runs_without_time_left(tmp_path, capsys):
    assert hardware.main(["--device=CPU", "--size=small", "--minutes=0", f"--output={tmp_path}", "--models=refinedet"], Forked) == 0
    assert "| resume | RefineDet | not run | no time left |" in (tmp_path / "report.md").read_text()
    assert "`tests/hardware.py --size=small`: 6 not run |" in capsys.readouterr().out


@pytest.mark.slow
def test_checks_on_the_cpu(tmp_path, capsys):
    """RefineDet; only the exported network is compiled."""
    checks = "numbers,speed,resume,infer,export"
    chosen = ["--models=refinedet", f"--checks={checks}"]
    status = hardware.main(["--device=CPU", "--size=small", f"--output={tmp_path}", *chosen], Forked)
    report = (tmp_path / "report.md").read_text()
    assert status == 0, report
    assert "--size=small`: 5 ok |" in report and report in capsys.readouterr().out
    assert re.search(r"\| numbers \| RefineDet \| ok \| float32: losses \S+, gradients .* detections [1-9]\d* / 0 / 0 ", report)
    assert "over 2 steps after 1 of warm-up" in report and "losses of 2 steps differ by 0.0e+00" in report
    assert "| ok | MINDIR; MINDIR:" in report


def test_a_command_that_fails_is_a_failed_check(tmp_path, capsys):
    class Failing(Forked):
        def call(self, command, seconds):
            return commands.run(["python", "-c", "import sys; print('no kernel for TopK'); sys.exit(3)"], self.output)

    chosen = ["--models=refinedet", "--checks=speed"]
    status = hardware.main(["--device=CPU", "--size=small", f"--output={tmp_path}", *chosen], Failing)
    assert status == 1
    assert "| speed | RefineDet | failed | speed_refinedet: status 3: no kernel for TopK |" in capsys.readouterr().out
    assert (tmp_path / "logs" / "speed_refinedet.log").read_text().endswith("no kernel for TopK\n")
