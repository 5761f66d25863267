"""The command of the package: `MODEL train --key=value ...` runs `python train.py --key=value ...` in the model's folder."""
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from .own_utils import MODEL_DIR, find_folder

# Command -> (file in the model's folder or in utils/, description).
COMMANDS = {
    "train": ("train.py", "train on a data set"),
    "eval": ("eval.py", "score a network, or a file of detections, on a data set"),
    "infer": ("infer.py", "detect objects in images, folders and videos, and draw them"),
    "export": ("export.py", "write a checkpoint's network as MINDIR, ONNX or AIR"),
    "convert": ("src/convert_checkpoint.py", "convert weights from and to other frameworks"),
    "check": ("utils/mindrecord/check.py", "list all problems of a data set"),
    "convert-data": ("utils/mindrecord/convert.py", "convert a data set to MindRecord beforehand"),
    "postprocess": ("postprocess.py", "settings for the C++ program, and the scores of its results"),
}


def main() -> NoReturn:
    """Replace this process by the command's file, so that options, signals and exit status are the file's."""
    program, (command, *options) = Path(sys.argv[0]).name, sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(usage(program))
        sys.exit(0)
    if command not in COMMANDS:
        print(f"{program}: error: unknown command {command!r}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    given = {option.partition("=")[0] for option in options}
    if command == "check" and "--config_path" in given and "--model" not in given:      # the YAML may be anywhere
        options.append(f"--model={MODEL_DIR}")
    words = [sys.executable, str(file_of(command)), *options]
    if os.name == "nt":         # execv returns to the shell at once on Windows
        sys.exit(subprocess.call(words))
    os.execv(sys.executable, words)


def usage(program: str) -> str:
    """Return the text of --help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join([f"usage: {program} COMMAND [options]", "", *lines, "", f"{program} COMMAND --help lists the options."])


def file_of(command: str) -> Path:
    """Return the file of a command."""
    folder, _, rest = COMMANDS[command][0].partition("/")
    if folder == "utils":
        return (find_folder() or MODEL_DIR / folder) / rest
    return MODEL_DIR / COMMANDS[command][0]
