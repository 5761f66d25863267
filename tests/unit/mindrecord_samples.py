"""Small data sets for the tests of utils.mindrecord, and a reader that does not use it."""
import json
from pathlib import Path

import cv2
import numpy as np

COLUMNS = ("image", "image_id", "file_name", "index", "height", "width", "boxes", "labels", "crowds", "count")


def draw(path: Path, width: int = 40, height: int = 30, channels: int = 3, dtype=np.uint8, seed: int = 0) -> Path:
    """Write an image of noise. The suffix is the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if channels == 1 else (height, width, channels)
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)
    assert cv2.imwrite(str(path), pixels)
    return path


def cut(path: Path, share: float) -> Path:
    """Keep only the first part of a file."""
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])
    return path


def annotation(number: int, image_id, box, category=1, **more) -> dict:
    return {"id": number, "image_id": image_id, "category_id": category, "bbox": box, "iscrowd": 0, **more}


def coco_set(folder: Path, annotations: list, images: int = 3, **more) -> tuple:
    """Return (image_dir, JSON file): images 1.png, ... of 40x30 with ids 1, ...; categories 1 cat and 3 dog."""
    entries = []
    for number in range(1, images + 1):
        draw(folder / "pictures" / f"{number}.png", seed=number)
        entries.append({"id": number, "file_name": f"{number}.png", "width": 40, "height": 30})
    content = {"images": entries, "annotations": annotations,
               "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}], **more}
    path = folder / "anno.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder / "pictures", path


def voc_set(folder: Path, files: dict) -> tuple:
    """Return (image_dir, XML folder). files: {name: objects [(name, xmin, ymin, xmax, ymax)], or the file's text}."""
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    for number, (name, objects) in enumerate(files.items()):
        draw(folder / "JPEGImages" / f"{name}.jpg", seed=number)
        text = objects if isinstance(objects, str) else voc_xml(f"{name}.jpg", objects)
        (folder / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")
    return folder / "JPEGImages", folder / "Annotations"


def voc_xml(file_name: str, objects: list, size: tuple = (40, 30)) -> str:
    nodes = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
        f"<ymax>{box[3]}</ymax></bndbox></object>" for name, *box in objects)
    return (f"<annotation><filename>{file_name}</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
            f"<depth>3</depth></size>{nodes}</annotation>")


def txt_set(folder: Path, text: str, images: tuple = ("a.jpg", "b.jpg")) -> tuple:
    """Return (image_dir, text file)."""
    for number, name in enumerate(images):
        draw(folder / "pictures" / name, seed=number)
    path = folder / "anno.txt"
    path.write_text(text, encoding="utf-8")
    return folder / "pictures", path


def read_back(output_dir: Path, masks: bool = False) -> list:
    """Return the rows of a conversion as MindSpore reads them, in the order of the files."""
    import mindspore.dataset as ds

    manifest = json.loads((output_dir / "manifest.json").read_text(encoding="utf-8"))
    files = [str(output_dir / name) for name in manifest["files"]]
    rows = list(ds.MindDataset(files, shuffle=False).create_dict_iterator(num_epochs=1, output_numpy=True))
    columns = sorted([*COLUMNS, *["masks"] * masks])
    assert all(sorted(row) == columns for row in rows)
    return rows
