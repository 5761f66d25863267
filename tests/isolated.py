"""Run a function in another process, to free its memory: MindSpore keeps some of every graph that it compiled.

usage (only by `isolated`): python -m tests.isolated CALL.pickle RESULT.pickle
"""
import pickle
import sys
import tempfile
from pathlib import Path

from tests import commands


def isolated(function, *arguments, eager=False):
    """Return function(*arguments). If it fails, the AssertionError shows its output.

    function: of a module, so that pickle finds it. eager: see the fixture of that name.
    """
    with tempfile.TemporaryDirectory() as folder:
        call, result = Path(folder, "call.pickle"), Path(folder, "result.pickle")
        call.write_bytes(pickle.dumps((function, arguments)))
        done = commands.run(["python", "-m", "tests.isolated", call, result],
                            env={"MS_JIT": "0"} if eager else None)
        assert done.returncode == 0, done.stdout + done.stderr
        return pickle.loads(result.read_bytes())


def main(call: str, result: str) -> None:
    import mindspore as ms

    ms.set_device("CPU")
    ms.runtime.launch_blocking()
    function, arguments = pickle.loads(Path(call).read_bytes())
    Path(result).write_bytes(pickle.dumps(function(*arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
