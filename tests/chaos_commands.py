"""The commands that tests/chaos.py runs, with small inputs that are written once."""
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from tests import commands, toy_data
from tests.unit import format_samples, mindrecord_samples

ROOT = Path(__file__).resolve().parents[1]
CLASSES = "[background, thing 1, thing 2, thing 3]"
TOY_KEYS = ("--num_classes=4", f"--coco_classes={CLASSES}", "--device_target=CPU", "--num_parallel_workers=1")


@dataclass
class Command:
    """A command line. words: {in} and {out} stand for the folders of inputs and results; env: overrides the environment.

    inputs: patterns of the files it reads; resumes: a killed run is resumed and must end like an uninterrupted one.
    """

    name: str
    words: list
    inputs: tuple = ()
    env: dict = field(default_factory=dict)
    resumes: bool = False
    weight: int = 4
    seconds: float = 1.0        # for a whole run

    def arguments(self, inputs: Path, output: Path) -> list:
        return [str(word).replace("{in}", str(inputs)).replace("{out}", str(output)) for word in self.words]


def prepare(folder: Path, groups) -> dict:
    """Return {name: (Command, folder of its inputs)} for the commands in these groups (keys of GROUPS)."""
    return {command.name: (command, inputs) for name in groups for command, inputs in GROUPS[name](folder)}


def data_tools(folder: Path):
    boxes = [mindrecord_samples.annotation(i, 1 + i % 3, [2, 3, 20, 11], 1 + 2 * (i % 2)) for i in range(1, 7)]
    mindrecord_samples.coco_set(folder / "coco", boxes)
    mindrecord_samples.voc_set(folder / "voc", {f"p{i}": [("cat", 1, 2, 20, 21), ("dog", 3, 3, 9, 9)] for i in range(3)})
    lines = [format_samples.yolo_line(0, 1, 2, 10, 12), format_samples.yolo_line(1, 5, 5, 9, 9)]
    format_samples.yolo_set(folder / "yolo", {"train": {"a": lines, "b": lines[:1]}, "val": {"c": lines}})
    shapes = [format_samples.shape("cat", [[1, 2], [9, 9], [3, 20]])]
    format_samples.labelme_set(folder / "labelme", dict.fromkeys("ab", shapes))
    text = "".join(f"{folder}/coco/pictures/{i}.png 1,2,20,21,0 3,3,9,9,1\n" for i in (1, 2, 3))
    (folder / "coco" / "list.txt").write_text(text)
    places = {"coco": ("{in}/pictures", "{in}/anno.json"), "voc": ("{in}/JPEGImages", "{in}/Annotations"),
              "yolo": (None, "{in}/data.yaml"), "labelme": ("{in}", "{in}")}
    for source, (images, anno) in places.items():
        where = [f"--source={source}", f"--anno_path={anno}", *([f"--image_dir={images}"] if images else [])]
        inputs = ("**/*.json", "**/*.xml", "**/*.txt", "**/*.yaml", "**/*.png", "**/*.jpg")
        yield Command(f"check {source}", [ROOT / "utils/mindrecord/check.py", *where], inputs), folder / source
        yield Command(f"convert {source}", [ROOT / "utils/mindrecord/convert.py", *where, "--output_dir={out}/rows"], inputs,
                      weight=2), folder / source
    masks = folder / "masks"
    for i in range(4):
        mindrecord_samples.draw(masks / "images" / f"m{i}.png", seed=i)
        (masks / "annotations").mkdir(exist_ok=True)
        (masks / "annotations" / f"m{i}.xml").write_text(mindrecord_samples.voc_xml(f"m{i}.png", [("mask", 1, 2, 11, 22)]))
    yield Command("xml2coco", [ROOT / "faster_rcnn/src/xml2coco.py", "--data_path={in}", "--save_path={out}/made.json"],
                  ("**/*.xml", "**/*.png")), masks
    tables = folder / "tables"
    tables.mkdir()
    for i in (1, 2):
        server = {"server_id": f"10.0.0.{i}", "device": [{"device_id": "0", "device_ip": f"10.1.0.{i}", "rank_id": "0"}]}
        (tables / f"t{i}.json").write_text(json.dumps({"version": "1.0", "server_count": "1", "server_list": [server],
                                                       "status": "completed"}))
    yield Command("merge_hccl", [ROOT / "utils/hccl_tools/merge_hccl.py", "{in}/t1.json", "{in}/t2.json",
                                 "--output_dir={out}"], ("*.json",),
                  weight=2), tables
    yield Command("rank_table", [ROOT / "utils/launch/rank_table.py", "--count", "{in}/t1.json"], ("t1.json",), weight=2), tables


def weights_tools(folder: Path):
    from tests.unit.test_convert_checkpoint import random_weights, write_torch

    for kind in ("zip", "stream"):
        place = folder / f"torch {kind}"
        place.mkdir()
        write_torch(kind, place / "m.pth", random_weights())
        yield Command(f"convert_checkpoint {kind}", [ROOT / "faster_rcnn/src/convert_checkpoint.py", "--ckpt_file={in}/m.pth",
                                                     "--output_file={out}/o.ckpt"], ("m.pth",), weight=6), place


def scoring(folder: Path):
    from tests.unit.mindrecord_samples import annotation

    place = folder / "score"
    _, path = mindrecord_samples.coco_set(place, [annotation(i, 1 + i % 3, [2, 3, 20, 11], area=220) for i in range(1, 7)])
    results = [{"image_id": 1 + i % 3, "category_id": 1, "bbox": [2, 3, 20, 11 + i], "score": 0.9 - i / 10} for i in range(6)]
    (place / "results.json").write_text(json.dumps(results))
    (place / "own.yaml").write_text("num_classes: 3\ncoco_classes: [background, cat, dog]\n")
    rows = [{"image_id": i, "file_name": f"{i}.png", "image_info": [30, 40, 1, 1, 30, 40], "boxes": [[2, 3, 22, 14]],
             "scores": [0.5], "labels": [1]} for i in (1, 2, 3)]
    (place / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = "--config_path={in}/own.yaml", "--output_path={out}"
    yield Command("eval detections", [ROOT / "refinedet/eval.py", *own, "--detections={in}/results.json", "--dataset=coco",
                                      "--anno_path={in}/anno.json"], ("*.json", "*.yaml"), weight=6), place
    yield Command("postprocess", [ROOT / "faster_rcnn/postprocess.py", *own, "--results_path={in}/results.jsonl", "--dataset=coco",
                                  "--image_dir={in}/pictures", "--anno_path={in}/anno.json"],
                  ("*.json", "*.jsonl", "*.yaml"), weight=6), place


def toy_inference(folder: Path):
    from tests.toy_network import ToyDetector

    place = folder / "toy"
    place.mkdir()
    toy_data.export_toy(ToyDetector(4), place, place)
    toy_data.write_quarters(place)
    keys = [*TOY_KEYS[:1], "--coco_classes=[background, cat, dog, bird]", *TOY_KEYS[2:], "--img_height=96", "--img_width=128",
            "--output_path={out}"]
    yield Command("infer onnx", [ROOT / "faster_rcnn/infer.py", *keys, "--onnx_path={in}/toy.onnx", "--input={in}/val2017"],
                  ("toy.onnx", "val2017/*"), weight=6), place
    yield Command("eval onnx", [ROOT / "faster_rcnn/eval.py", *keys, "--onnx_path={in}/toy.onnx", "--coco_root={in}",
                                "--mindrecord_dir={out}/rows"], ("toy.onnx", "**/*.json", "val2017/*"), weight=3), place


def narrow_inference(folder: Path):
    """Narrow versions of the default detectors. A first run keeps its graph, so that later runs compile nothing."""
    for model in ("faster_rcnn", "refinedet"):
        place = folder / f"narrow {model}"
        place.mkdir()
        make_narrow(model, place)
        cv2.imwrite(str(place / "p.png"), np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
        words = ["--config_path={in}/narrow.yaml", "--checkpoint_path={in}/narrow.ckpt", "--device_target=CPU"]
        infer = Command(f"infer {model}", [ROOT / model / "infer.py", *words, "--input={in}/p.png", "--output_path={out}"],
                        ("narrow.ckpt", "narrow.ckpt", "narrow.yaml", "p.png"), {"MS_JIT": None}, weight=8, seconds=3)
        done = commands.run(["python", *infer.arguments(place, folder / "first")], env=infer.env)
        assert done.returncode == 0, done.stderr
        yield infer, place
        export = [words[0], "--ckpt_file={in}/narrow.ckpt", "--device_target=CPU", "--file_format=ONNX", "--file_name={out}/net"]
        yield Command(f"export {model}", [ROOT / model / "export.py", *export], ("narrow.ckpt",), {"MS_JIT": None}, weight=1,
                      seconds=40), place


def make_narrow(model: str, place: Path) -> None:
    """Write narrow.yaml and narrow.ckpt (with a checksum)."""
    import yaml

    if model == "refinedet":
        from refinedet.src.model_utils.weights.writer import write_weights
        from tests.narrow_refinedet import narrow_config, narrow_network
    else:
        from faster_rcnn.src.model_utils.weights.writer import write_weights
        from tests.narrow_network import narrow_config, narrow_network
    config = narrow_config()
    net = narrow_network(config)
    (place / "narrow.yaml").write_text(yaml.safe_dump(config.to_dict()))
    write_weights({param.name: param.asnumpy() for param in net.get_parameters()}, place / "narrow.ckpt")


def training(folder: Path):
    place = folder / "train"
    place.mkdir()
    toy_data.write_noise(place)
    (place / "own.yaml").write_text("img_width: 64\nimg_height: 64\nnum_gts: 4\nbatch_size: 2\ntest_batch_size: 2\nepoch_size: 2\n"
                                    "warmup_step: 2\nlog_interval: 1\nsave_checkpoint_steps: 1\nrun_eval: False\n")
    for model in ("faster_rcnn", "mask_rcnn", "refinedet"):
        words = [ROOT / "tests/toy_train.py", f"--toy_model={model}", "--config_path={in}/own.yaml", *TOY_KEYS, "--coco_root={in}",
                 "--dataset=coco", "--mindrecord_dir={out}/rows", "--output_path={out}", "--resume=auto"]
        yield Command(f"train {model}", words, ("**/*.json", "own.yaml", "train2017/*"), {"MS_JIT": "0"}, resumes=True, weight=8,
                      seconds=4), place
        if model == "refinedet":        # the toy network does not read pre_trained
            continue
        words = [*words[:-1], "--pre_trained={in}/start.ckpt", "--max_steps=1"]
        done = commands.run(["python", *Command("", words[:-2]).arguments(place, folder / model)], env={"MS_JIT": "0"})
        assert done.returncode == 0, done.stderr
        own = folder / f"start {model}"
        shutil.copytree(place, own)
        shutil.copy(folder / model / "checkpoint" / "last.ckpt", own / "start.ckpt")
        yield Command(f"train pre_trained {model}", words, ("start.ckpt",), {"MS_JIT": "0"}, weight=3, seconds=3), own


GROUPS = {"data": data_tools, "weights": weights_tools, "scoring": scoring, "toy": toy_inference, "narrow": narrow_inference,
          "training": training}
