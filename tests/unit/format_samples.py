"""Small data sets in the formats of annotation tools. Images are 40x30, as `draw` makes them."""
import json
from pathlib import Path

from tests.unit.mindrecord_samples import draw

SIZE = 40, 30       # width, height


def yolo_line(number: int, x: float, y: float, width: float, height: float) -> str:
    """Return the line for a box in pixels."""
    return f"{number} {(x + width / 2) / SIZE[0]} {(y + height / 2) / SIZE[1]} {width / SIZE[0]} {height / SIZE[1]}"


def yolo_polygon(number: int, *points) -> str:
    return f"{number} " + " ".join(f"{x / SIZE[0]} {y / SIZE[1]}" for x, y in points)


def yolo_set(root: Path, sets: dict, names=("cat", "dog")) -> Path:
    """Write images/SET, labels/SET and data.yaml for {set: {image: lines, or None for no label file}}. Return data.yaml."""
    seed = 0
    for name, images in sets.items():
        for stem, lines in images.items():
            seed += 1
            draw(root / "images" / name / f"{stem}.png", seed=seed)
            label = root / "labels" / name / f"{stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            if lines is not None:
                label.write_text("".join(f"{line}\n" for line in lines))
    path = root / "data.yaml"
    lines = [f"{name}: images/{name}" for name in sets] + [f"nc: {len(names)}", f"names: {json.dumps(list(names))}"]
    path.write_text("\n".join(["path: .", *lines, ""]))
    return path


def shape(label, points, kind="polygon", **more) -> dict:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme_file(path: Path, shapes: list, image: str, size=SIZE, more=()) -> None:
    """size: width and height; None: both are null; more: overrides entries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size or (None, None)
    path.write_text(json.dumps({"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None,
                                "imageHeight": height, "imageWidth": width, **dict(more)}))


def labelme_set(folder: Path, files: dict, **more) -> Path:
    """Write a file and an image for each of {name: shapes}. more: overrides entries of every file."""
    for seed, (name, shapes) in enumerate(files.items()):
        draw(folder / f"{name}.jpg", seed=seed)
        labelme_file(folder / f"{name}.json", shapes, f"{Path(name).name}.jpg", more=more)
    return folder
