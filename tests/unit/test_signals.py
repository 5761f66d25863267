"""Signals at any point of a command: its status, one line, no traceback and no temporary file; and too little memory."""
import re
import signal
import subprocess
import sys
import time

import pytest

from faster_rcnn.src.model_utils.command import run_main
from faster_rcnn.src.model_utils.config import DamagedError
from faster_rcnn.src.model_utils.memory import lacks_memory

# A command that imports a slow library named mindspore, then runs the function named in argv[1].
PROGRAM = """
import sys
from src.model_utils.signals import end_at_signals

end_at_signals()
import ctypes, os, time
from pathlib import Path
from src.model_utils import signals
from src.model_utils.command import run_main
from src.model_utils.files import replacing, scratch_folder

signals.GRACE = signals.UNWINDING = float(sys.argv[2])


def ready():
    print("ready", flush=True)


def importing():
    import mindspore.slow


def compiling():
    from mindspore import api
    with scratch_folder(Path("net.onnx")) as folder:
        (folder / "half").touch()
        api.compile_graph(ready)


def inferring():
    from mindspore import api
    signals.last_words.append(lambda: "2 of 3 are done")
    signals.last_words.append(str)
    api.compile_graph(ready)


def computing():
    with replacing(Path("results.json")) as partial:
        partial.write_text("half")
        ready()
        time.sleep(9)


def closing():
    try:
        ready()
        time.sleep(9)
    finally:
        Path("closed").touch()


def stuck():
    with replacing(Path("results.json")) as partial:
        partial.write_text("half")
        ready()
        ctypes.PyDLL(None).usleep(1)        # the lock of the interpreter is kept
        ctypes.CDLL(None).sleep(9)


def swallowing():
    ready()
    try:
        time.sleep(9)
    except BaseException:
        raise RuntimeError("of a library") from None


def deaf():
    for number in range(3):
        try:
            number or ready()
            time.sleep(3)
        except BaseException:
            print("heard", flush=True)


if sys.argv[1] == "no_memory":
    ready()
    raise ImportError("libx.so: failed to map segment from shared object")
if sys.argv[1] == "bug":
    ready()
    raise KeyError("a bug")
if sys.argv[1] == "unguarded":
    ready()
    time.sleep(9)
if sys.argv[1] == "taken_over":         # as MindSpore does whenever it runs a graph
    import mindspore
    action, ignored = ctypes.create_string_buffer(512), (1).to_bytes(8, "little")
    ctypes.CDLL(None).signal(2, ctypes.c_void_p(1))
    for _ in range(900):
        ctypes.CDLL(None).sigaction(2, None, action)
        if action.raw[:8] != ignored:
            break
        time.sleep(0.01)
    sys.argv[1] = "computing"
run_main(globals()[sys.argv[1]])
"""
LIBRARY = {"__init__.py": "", "slow.py": "print('ready', flush=True)\nimport time\ntime.sleep(9)\n",
           "api.py": "import time\n\n\ndef compile_graph(ready):\n    ready()\n    time.sleep(9)\n"}


@pytest.fixture(scope="module")
def program(tmp_path_factory, repo_dir):
    """start(what, cwd, patience) -> the process, ready at that point. patience: GRACE and UNWINDING in seconds."""
    folder = tmp_path_factory.mktemp("program") / "mindspore"      # a clone may have this name
    (folder / "mindspore").mkdir(parents=True)
    for name, text in LIBRARY.items():
        (folder / "mindspore" / name).write_text(text)
    (folder / "infer.py").write_text(PROGRAM)
    (folder / "src").symlink_to(repo_dir / "faster_rcnn" / "src")

    def start(what, cwd, patience=0.3):
        process = subprocess.Popen([sys.executable, "-S", str(folder / "infer.py"), what, str(patience)], cwd=cwd,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        return process

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("what", ["importing", "compiling", "computing", "stuck", "swallowing", "deaf", "unguarded", "taken_over"])
def test_a_signal_ends_a_command_with_a_line(program, tmp_path, what, number):
    process = program(what, tmp_path)
    time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=8)
    assert (process.returncode, said) == (128 + number, f"infer.py: {'interrupted' if number == signal.SIGINT else 'terminated'}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_command_in_a_folder_named_mindspore_runs_its_cleanup(program, tmp_path):
    process = program("closing", tmp_path, patience=60)
    process.send_signal(signal.SIGINT)
    assert process.wait(8) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["closed"]


def test_progress_is_reported_if_a_signal_ends_library_code(program, tmp_path):
    process = program("inferring", tmp_path, patience=60)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=8)[1] == "2 of 3 are done\ninfer.py: terminated\n"


def test_a_second_signal_does_not_wait(program, tmp_path):
    process = program("deaf", tmp_path, patience=60)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "heard\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130


def test_signals_that_the_parent_ignores_stay_ignored(program, tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = program("computing", tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    assert process.poll() is None
    process.terminate()
    assert process.wait(5) == 143


@pytest.mark.parametrize("script", ["faster_rcnn/train.py", "refinedet/infer.py", "mask_rcnn/eval.py",
                                    "utils/mindrecord/convert.py", "faster_rcnn/src/convert_checkpoint.py"])
def test_each_command_listens(repo_dir, script):
    """A signal ends a command that still imports its first modules."""
    waits = "import sys, time, runpy, os\nsys.argv = sys.argv[1:]\n" \
            "class Waits:\n    def find_spec(self, name, *_):\n" \
            "        if name in ('yaml', 'numpy', 'cv2'):\n            os.write(1, b'ready\\n')\n            time.sleep(9)\n" \
            "sys.meta_path.insert(0, Waits())\nsys.path.insert(0, os.path.dirname(sys.argv[0]))\n" \
            "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    process = subprocess.Popen([sys.executable, "-c", waits, str(repo_dir / script)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n", process.stderr.read()
    process.terminate()
    _, said = process.communicate(timeout=8)
    assert process.returncode == 143 and re.fullmatch(rb"\w+\.py: terminated\n", said), said


# ---- memory

def test_too_little_memory_for_the_first_modules(program, tmp_path):
    _, said = (process := program("no_memory", tmp_path)).communicate(timeout=8)
    assert process.returncode == 1
    assert re.fullmatch(r"infer\.py: error: not enough memory.*: libx\.so: failed to map segment from shared object\n", said)
    _, said = (process := program("bug", tmp_path)).communicate(timeout=8)
    assert process.returncode == 1 and said.startswith("Traceback") and said.endswith("KeyError: 'a bug'\n")


def test_errors_of_too_little_memory():
    wrapped = RuntimeError("loading failed")
    wrapped.__cause__ = MemoryError()
    for error in (MemoryError(), RuntimeError("std::bad_alloc"), OSError(12, "Cannot allocate memory"), wrapped,
                  ImportError("libx.so: failed to map segment from shared object"),
                  RuntimeError("can't start new thread")):
        assert lacks_memory(error), error
    for error in (RuntimeError("a bug"), OSError(2, "No such file or directory"), DamagedError("out of memory.ckpt: damaged")):
        assert not lacks_memory(error), error


def test_too_little_memory_is_one_line(monkeypatch, capsys):
    def main():
        raise RuntimeError("\n-----\n- Allocate memory failed\n-----")

    monkeypatch.setattr(sys, "argv", ["/x/infer.py"])
    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert ended.value.code == 1
    assert re.fullmatch(r"infer\.py: error: not enough memory.*: - Allocate memory failed\n", capsys.readouterr().err)


def test_other_errors_are_not_hidden(monkeypatch):
    def main():
        raise RuntimeError("a bug")

    monkeypatch.setattr(sys, "argv", ["/x/infer.py"])
    with pytest.raises(RuntimeError, match="a bug"):
        run_main(main)
