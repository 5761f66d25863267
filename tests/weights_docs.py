"""The tables of docs/weights.md and docs/weights_CN.md, from published.yaml.

usage: python -m tests.weights_docs
Rewrites what stands between the two markers of each file.
"""
from pathlib import Path

from faster_rcnn.src.model_utils.weights.published import Published, as_options, read_table

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- from published.yaml: python -m tests.weights_docs -->\n", "<!-- end of the tables -->\n"
MODELS = {"faster_rcnn": "Faster R-CNN", "mask_rcnn": "Mask R-CNN", "refinedet": "RefineDet"}
# File -> titles and words: detectors, backbones, the heads of the columns, what stands for a missing checksum or size.
WORDS = {
    "weights.md": ("### Detectors", "### Backbones", ("Name", "For", "Box AP", "Mask AP", "Source, file"),
                   ("Name", "For", "ImageNet top-1", "Trained with", "Source, file"), "no checksum", "size not stated"),
    "weights_CN.md": ("### 检测器", "### 骨干网络", ("名称", "模型", "框 AP", "掩码 AP", "来源与文件"),
                      ("名称", "模型", "ImageNet top-1", "训练时的参数", "来源与文件"), "无校验和", "未给出大小"),
}


def tables(file: str) -> str:
    """Return what stands between the markers of a file."""
    detectors, backbones, detector_heads, backbone_heads, unchecked, unsized = WORDS[file]
    entries = read_table().values()
    lines = [detectors, "", *_head(detector_heads)]
    lines += [_row(entry.name, _models(entry), _number(entry.box_ap), _number(entry.mask_ap), _file(entry, unchecked, unsized))
              for entry in entries if entry.is_detector]
    lines += ["", backbones, "", *_head(backbone_heads)]
    lines += [_row(entry.name, _models(entry), _number(entry.top1), _keys(entry), _file(entry, unchecked, unsized))
              for entry in entries if not entry.is_detector]
    return "\n".join([*lines, ""])


def with_tables(text: str, file: str) -> str:
    """Return the text of a file with the tables of today."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables(file)}\n{END}{rest.partition(END)[2]}"


def _head(names) -> list:
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def _row(name: str, *cells: str) -> str:
    return f"| `{name}` | {' | '.join(cells)} |"


def _models(entry: Published) -> str:
    return ", ".join(MODELS[model] for model in entry.models)


def _number(value) -> str:
    return "" if value is None else f"{value:g}"


def _keys(entry: Published) -> str:
    """Options of each model; two-stage models share theirs."""
    options = {as_options(keys): model for model, keys in reversed(entry.models.items())}
    if len(options) == 1:
        return f"`{next(iter(options))}`"
    return "; ".join(f"{MODELS[model]}: `{text}`" for text, model in reversed(options.items()))


def _file(entry: Published, unchecked: str, unsized: str) -> str:
    size = f"{entry.size:.1f} MiB" if entry.size else unsized
    return f"{entry.source}, [{entry.file}]({entry.url}), {size}, {entry.checksum or unchecked}"


if __name__ == "__main__":
    for name in WORDS:
        path = DOCS / name
        path.write_text(with_tables(path.read_text(encoding="utf-8"), name), encoding="utf-8")
