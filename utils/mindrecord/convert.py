"""Convert annotations and their images to MindRecord. --help lists the formats.

usage: python utils/mindrecord/convert.py --source FORMAT --image_dir DIR --anno_path PATH --output_dir DIR [options]
   or: python -m utils.mindrecord.convert ...

From Python: `from utils.mindrecord import convert, ensure`.
"""
import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:     # run as a file: sys.path[0] is this folder, not the repository root
        sys.path[0] = str(Path(__file__).resolve().parents[2])
    from utils.signals import end_at_signals

    end_at_signals()
    from utils.mindrecord.cli import convert_main

    sys.exit(convert_main())
