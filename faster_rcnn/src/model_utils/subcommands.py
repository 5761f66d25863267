"""The command of the package: `MODEL train --key=value ...` is `python train.py --key=value ...` in the model's folder."""
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from .own_utils import MODEL_DIR, find_folder

# Command -> its file in the model's folder, or in utils/, and what it does.
COMMANDS = {
    "train": ("train.py", "train on a data set"),
    "eval": ("eval.py", "score a network, or a file of detections, on a data set"),
    "infer": ("infer.py", "detect in images, folders and videos, and draw it"),
    "export": ("export.py", "write a checkpoint's network as MINDIR, ONNX or AIR"),
    "convert": ("src/convert_checkpoint.py", "convert weights of other frameworks, and ours for them"),
    "check": ("utils/mindrecord/check.py", "list all that is wrong with a data set"),
    "convert-data": ("utils/mindrecord/convert.py", "convert a data set to MindRecord beforehand"),
    "postprocess": ("postprocess.py", "settings for the C++ program, and the scores of its results"),
}


def main() -> NoReturn:
    """Run the file of the command in place of this process, so that options, signals and exit status are the file's."""
    program, (command, *options) = Path(sys.argv[0]).name, sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(usage(program))
        sys.exit(0)
    if command not in COMMANDS:
        print(f"{program}: error: {command!r} is no command: take one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    given = {option.partition("=")[0] for option in options}
    if command == "check" and "--config_path" in given and "--model" not in given:      # the YAML may lie anywhere
        options.append(f"--model={MODEL_DIR}")
    words = [sys.executable, str(file_of(command)), *options]
    if os.name == "nt":         # there execv returns to the shell at once
        sys.exit(subprocess.call(words))
    os.execv(sys.executable, words)


def usage(program: str) -> str:
    """Return what --help prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join([f"usage: {program} COMMAND [options]", "", *lines, "", f"{program} COMMAND --help lists the options."])


def file_of(command: str) -> Path:
    """Return the file of a command."""
    folder, _, rest = COMMANDS[command][0].partition("/")
    if folder == "utils":
        return (find_folder() or MODEL_DIR / folder) / rest
    return MODEL_DIR / COMMANDS[command][0]
