"""The table of docs/platforms.md and docs/platforms_CN.md: the primitives of our graphs, and where MindSpore documents them.

usage: python -m tests.platform_docs [PRIMITIVES.json]
Compiles the graphs or reads an earlier output of tests/primitives.py, looks the primitives up in the docstrings of the installed
MindSpore, and rewrites the text between the two markers of each file.
"""
import json
import re
import sys
import tempfile
from functools import cache
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- from MindSpore's docstrings: python -m tests.platform_docs -->\n", "<!-- end of the table -->\n"
PLATFORMS = ("Ascend", "GPU", "CPU")
# File -> column heads, words for a gradient.
WORDS = {
    "platforms.md": (("Primitive", "Training", "Inference", *PLATFORMS, "Tensor types", "Documented at"), "gradient of {}"),
    "platforms_CN.md": (("算子", "训练", "推理", *PLATFORMS, "张量类型", "文档出处"), "{} 的梯度"),
}
MODELS = {"faster_rcnn": "F", "mask_rcnn": "M", "refinedet": "R", "fast convolution": "F M R"}
SUPPORT = re.compile(r"Supported Platforms:\s+((?:``\w+``[ ,]*)+)")
REFERENCE = re.compile(r"Refer to :(?:func|class):`mindspore\.(?:ops|mint)\.(\w+)`")
# Gradient primitives have no documentation. They run where their operator runs. GRADIENTS names the operators that are not the
# primitive's name without its ending.
GRADIENT_ENDING = re.compile(r"Grad(V2)?$")
GRADIENTS = {"Conv2DBackpropFilter": "Conv2D", "Conv2DBackpropInput": "Conv2D", "ReluGrad": "ReLU"}
# Primitives that MindSpore makes from a public or Python operator, and documents there.
MADE_BY = {
    "AddScalar": "add", "Divs": "div", "EqScalar": "equal", "LessScalar": "less", "MatMulExt": "matmul", "Max": "max",
    "Muls": "mul", "RemainderTensorScalar": "remainder", "SplitWithSize": "split", "ZerosLikeExt": "zeros_like",
}


def graphs(*cases: str) -> dict:
    """Compile all cases or these in another process. Return {case: {stage: {primitive: types of its inputs}}}."""
    from tests import commands

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "primitives.json")
        done = commands.run(["python", "-m", "tests.primitives", path, *cases])
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(path.read_text(encoding="utf-8"))


@cache
def platforms_of(name: str) -> tuple:
    """Return the platforms that the documentation names, or None, and where it does, for a primitive or an operator."""
    if forward := gradient_of(name):
        return platforms_of(forward)[0], forward
    if name in MADE_BY:
        return platforms_of(MADE_BY[name])[0], f"ops.{MADE_BY[name]}"
    for text in _docstrings(name):
        found = SUPPORT.search(text)
        if found:
            return tuple(re.findall(r"\w+", found[1])), f"ops.{name}"
        reference = REFERENCE.search(text)
        if reference and reference[1] != name:
            there, place = platforms_of(reference[1])
            if there:
                return there, place
    return None, ""


def gradient_of(name: str) -> str:
    """Return the operator whose gradient the primitive is, or ""."""
    return GRADIENTS.get(name) or (GRADIENT_ENDING.sub("", name) if GRADIENT_ENDING.search(name) else "")


def _docstrings(name: str) -> list:
    from mindspore import ops
    from mindspore.ops import auto_generate, operations
    from mindspore.ops.auto_generate import gen_ops_def, gen_ops_prim
    from mindspore.ops.operations import _grad_ops, _inner_ops

    modules = ops, operations, auto_generate, gen_ops_prim, gen_ops_def, _inner_ops, _grad_ops
    return [found.__doc__ for module in modules if (found := getattr(module, name, None)) and found.__doc__]


def rows(found: dict) -> dict:
    """Return {primitive: {"training": models, "inference": models, "types": types}} of `graphs()`."""
    table: dict = {}
    for case, stages in found.items():
        letter = MODELS[case] if case in MODELS else MODELS[case.split()[0]]
        for stage, names in stages.items():
            for name, types in names.items():
                row = table.setdefault(name, {"training": set(), "inference": set(), "types": set()})
                row[stage].update(letter.split())
                row["types"].update(word for text in types for word in text.split())
    return dict(sorted(table.items()))


def marks_of(name: str) -> list:
    """Return the table's mark for each of PLATFORMS."""
    there, _ = platforms_of(name)
    return ["yes" if platform in (there or ()) else "**no**" if there else "?" for platform in PLATFORMS]


def table_in(file: str) -> dict:
    """Return {primitive: cells} of the table in a file."""
    text = (DOCS / file).read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]
    return {name.strip("`"): rest for name, *rest in cells}


def unlisted(found: dict, model: str, stage: str) -> list:
    """Return the parts of {primitive: types} that the table lacks, as "TopK float64" or "TopK training F"."""
    known, column, letter = table_in("platforms.md"), ("training", "inference").index(stage), MODELS[model]
    missing = []
    for name, inputs in found.items():
        cells = known.get(name)
        if cells is None:
            missing.append(name)
            continue
        if letter not in cells[column].split():
            missing.append(f"{name} {stage} {letter}")
        types = {word.lower() for text in inputs for word in text.split()}
        missing += [f"{name} {kind}" for kind in sorted(types - set(cells[5].split(", ")))]
    return missing


def table_of(found: dict, file: str) -> str:
    """Return the table that goes between the markers."""
    heads, gradient = WORDS[file]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, row in rows(found).items():
        _, place = platforms_of(name)
        marks = marks_of(name)
        where = gradient.format(f"`{place}`") if gradient_of(name) else f"`{place}`" if place else "-"
        used = [" ".join(sorted(row[stage])) or "-" for stage in ("training", "inference")]
        types = ", ".join(sorted(kind.lower() for kind in row["types"])) or "-"
        lines.append("| " + " | ".join([f"`{name}`", *used, *marks, types, where]) + " |")
    return "\n".join([*lines, ""])


def with_table(text: str, found: dict, file: str) -> str:
    """Return the text of a file with the new table."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table_of(found, file)}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    today = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")) if len(sys.argv) > 1 else graphs()
    for document in WORDS:
        path = DOCS / document
        path.write_text(with_table(path.read_text(encoding="utf-8"), today, document), encoding="utf-8")
