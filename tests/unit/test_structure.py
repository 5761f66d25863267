"""Layout of the models: a trunk apart from each model's files, no import cycles, and entry points that only start a run."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sync_copies import find_copies

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = {"faster_rcnn": "FasterRcnn", "mask_rcnn": "MaskRcnn", "refinedet": None}
ENTRY_POINTS = ("train.py", "eval.py", "export.py", "infer.py", "postprocess.py")
MOST_LINES, MOST_COPIES = 60, 5
MODEL_NAMES = re.compile(r"faster[ _-]?r-?cnn|mask[ _-]?r-?cnn|refine[ _-]?det", re.IGNORECASE)


def imports_of(source: Path) -> dict[str, set[str]]:
    """{module: modules that it imports} of a `src` folder, as dotted names below it; imports inside functions count."""
    modules = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in modules.items():
        package, found = path.relative_to(source).parts[:-1], set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*package[:len(package) - node.level + 1], *(node.module or "").split(".")]
                base = ".".join(filter(None, base))
                found |= {full if (full := f"{base}.{item.name}".strip(".")) in modules else base for item in node.names}
        graph[name] = {item for item in found if item in modules and item != name}
    return graph


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    def reached(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            for item in graph[waiting.pop()] - seen:
                seen.add(item)
                waiting.append(item)
        return seen

    reach = {name: reached(name) for name in graph}
    groups = {tuple(sorted({name, *(other for other in reach[name] if name in reach[other])})) for name in graph
              if name in reach[name]}
    return [list(group) for group in sorted(groups)]


def test_a_cycle_is_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}}) == [["a", "b", "c"]]


@pytest.mark.parametrize("model", NETWORKS)
def test_no_module_imports_itself_through_others(model):
    graph = imports_of(ROOT / model / "src")
    assert len(graph) > 50 and "model_utils.config" in graph["model_utils.training.run"] and cycles(graph) == []


def test_the_trunk_names_no_model():
    for path in sorted((ROOT / "faster_rcnn" / "src" / "model_utils").rglob("*.py")):
        found = MODEL_NAMES.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


@pytest.mark.parametrize("model", ["mask_rcnn", "refinedet"])
def test_the_trunk_is_the_same_in_every_model(model):
    original, trunk = (ROOT / name / "src" / "model_utils" for name in ("faster_rcnn", model))
    files = {path.relative_to(original) for path in original.rglob("*.py")}
    assert {path.relative_to(trunk) for path in trunk.rglob("*.py")} == files
    for file in files:
        marker, _, text = (trunk / file).read_text(encoding="utf-8").partition("\n")
        assert marker == f"# Same as faster_rcnn/src/model_utils/{file.as_posix()}"
        assert text == (original / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("model", ["mask_rcnn", "refinedet"])
def test_few_copies_are_outside_the_trunk(model):
    source = ROOT / model / "src"
    elsewhere = [source / "model_utils", *([source / NETWORKS[model]] if NETWORKS[model] else [])]
    copies = [path for path in find_copies(source) if not any(folder in path.parents for folder in elsewhere)]
    assert len(copies) <= MOST_COPIES, [str(path.relative_to(ROOT)) for path in copies]


@pytest.mark.parametrize("model", NETWORKS)
def test_entry_points_only_start(model):
    for name in ENTRY_POINTS:
        path = ROOT / model / name
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MOST_LINES, path
        tree = ast.parse(text)
        assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)] == ["main"], path
    # The trunk holds what an entry point does, and never imports an entry point.
    names = {Path(name).stem for name in ENTRY_POINTS}
    for path in sorted((ROOT / model / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            assert not names & set(imported), path


@pytest.mark.parametrize("model", NETWORKS)
def test_the_configuration_is_read_without_mindspore(model):
    """A wrong option is reported before MindSpore is imported."""
    code = "import sys; import src.model_utils.config, src.model_utils.moxing_adapter; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / model, timeout=60).returncode == 0
