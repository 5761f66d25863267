# Same as faster_rcnn/src/xml2coco.py
"""Convert VOC XML annotations to one COCO JSON file.

usage: python xml2coco.py --data_path /data/train/ --save_path /data/face_detection/annotations/instances_train2017.json
                          [--classes with_mask,without_mask,mask_weared_incorrect]

DATA/images holds the images, DATA/annotations an XML file for each. Boxes are taken as they are, with x2 - x1 as the width; those
without area are left out and reported. Categories are numbered from 1, in the order of --classes or else by name.
"""
import argparse
import json
import logging
import sys
from pathlib import Path

if not __package__:  # run as a file: import from its folder's parent, as `python -m` does
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "src"

log = logging.getLogger(__name__)


class XmlError(ValueError):
    """An error of the call, in one line."""

    user_error = True


def convert(data_path: Path, classes=None) -> dict:
    """Return the COCO data set of a folder with images/ and annotations/."""
    mindrecord = _import_utils().mindrecord
    images = data_path / "images"
    records, categories, problems = mindrecord.read_annotations(
        "voc", images, data_path / "annotations", ["background", *classes] if classes else None)
    kept = []
    for record in records:
        try:        # the size in the XML may be wrong or missing
            stored = mindrecord.image_files.inspect(mindrecord.image_files.read_image(images / record.file_name))
        except mindrecord.image_files.ImageError as error:
            problems.append(mindrecord.Problem(str(images / record.file_name), "", str(error), error.kind))
            continue
        picture = mindrecord.image_files.choose_frame(stored, record.height, record.width).info
        record.height, record.width = picture.height, picture.width
        kept.append(record)
    mindrecord.errors.warn_of(problems, log)
    if not kept:
        raise mindrecord.DataError(f"{images}: none of the images can be read")
    return mindrecord.records_to_coco(kept, categories)


def _import_utils():
    """Import utils/, which must lie beside the model's folder."""
    try:
        from .model_utils.own_utils import use_own_utils

        use_own_utils()
        import utils.files
        import utils.mindrecord
        import utils.mindrecord.image_files
    except ImportError as error:
        raise XmlError(f"utils/mindrecord is missing; copy utils/ and the model's folder side by side ({error})") from error
    return utils


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data_path", required=True, help="folder with images/ and annotations/")
    parser.add_argument("--save_path", required=True, help="the JSON file to write")
    parser.add_argument("--classes", type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
                        help="names of the classes, separated by commas (default: all, sorted)")
    args = parser.parse_args(argv)
    try:
        files = _import_utils().files
    except XmlError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    files.log_to_stderr()
    save_path = Path(args.save_path).expanduser()
    try:
        coco = convert(Path(args.data_path).expanduser(), args.classes)
        files.write_text(save_path, json.dumps(coco))
    except (Exception, KeyboardInterrupt) as error:     # noqa: BLE001
        from .model_utils.command import status_after

        return status_after(error, parser.prog)
    print(f"{save_path}: {len(coco['images'])} images, {len(coco['annotations'])} objects, "
          f"classes {', '.join(files.printable(category['name']) for category in coco['categories'])}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("xml2coco.py: interrupted", file=sys.stderr)
        sys.exit(130)
