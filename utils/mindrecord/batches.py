"""Draw training batches of a model, augmented as its configuration says. The model's own pipeline makes the batches."""
import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from .errors import DataError


def model_folder(args: argparse.Namespace) -> Path:
    """Return the model folder that check.py's options name; DataError if it is not a model or has no configuration."""
    if not args.config_path.is_file():
        raise DataError(f"--config_path: no such file: {args.config_path}")
    model = (args.model or args.config_path.parent).resolve()
    if not (model / "src" / "model_utils" / "training" / "drawn_batches.py").is_file():
        raise DataError(f"--model: {model} is not a model directory; name one such as faster_rcnn")
    return model


def draw_batches(args: argparse.Namespace, folder: Path) -> int:
    """Draw the first training batches of this data set into `folder` and return the number of images. args: of check.py."""
    model = model_folder(args)
    sys.path.insert(0, str(model))      # the model's modules are imported as src.*
    importlib.import_module("src.model_utils.local_adapter").prepare_environment()      # before MindSpore is imported
    draw = importlib.import_module("src.model_utils.training.drawn_batches").draw
    keys = {"dataset": args.source, "image_dir": str(args.image_dir or ""), "anno_path": str(args.anno_path),
            "image_set": args.image_set or "", "val_ratio": args.val_ratio or 0.0, "exif_orientation": args.exif_orientation}
    if args.classes:
        keys.update(coco_classes=args.classes, num_classes=len(args.classes))
    with tempfile.TemporaryDirectory() as scratch:
        return draw(args.config_path, keys, folder, args.draw_count, Path(scratch))
