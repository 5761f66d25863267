"""READMEs and pages of docs/: named files exist, commands and flags are valid, and both languages say the same."""
import ast
import importlib
import json
import re
import shlex
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest

from faster_rcnn.src.model_utils import config as faster_config
from faster_rcnn.src.model_utils.configuration.schema import read_keys
from mask_rcnn.src.model_utils import config as mask_config
from refinedet.src.model_utils import config as refinedet_config
from tests import commands

ROOT = Path(__file__).resolve().parents[2]
# Folder of a model -> its configuration module.
MODELS = {ROOT / "faster_rcnn": faster_config, ROOT / "mask_rcnn": mask_config, ROOT / "refinedet": refinedet_config}
KEYS = {model: read_keys(model / "default_config.yaml") for model in MODELS}
# Entry points whose flags are configuration keys.
ENTRY_POINTS = {model / f"{name}.py" for model in MODELS for name in ("train", "eval", "export", "infer")}
ENTRY_POINTS |= {ROOT / model / "postprocess.py" for model in ("faster_rcnn", "mask_rcnn", "refinedet")}
# English pages with a Chinese page beside them; docs/ has no other pages.
PAGES = [path.with_name(path.name.replace("_CN", "")) for pattern in ("*_CN.md", "*/*_CN.md", "*/*/*_CN.md")
         for path in sorted(ROOT.glob(pattern)) if not path.relative_to(ROOT).parts[0].startswith(".")]
READMES = [page.with_stem(page.stem + ending) for page in PAGES for ending in ("", "_CN")]
# Page -> maximum number of lines.
LENGTHS = {ROOT / "README.md": 100, **{model / "README.md": 150 for model in MODELS}}
LAUNCHER = ROOT / "utils" / "launch" / "run.py"
# Files that pages name although the repository does not hold them.
WRITTEN = {"config.yaml", "data.yaml"}       # of a run, of a data set in YOLO's format
# How values of --config_path begin for files that the pages' commands write.
WRITTEN_CONFIGS = ("--config_path=output/config.yaml", "--config_path=detector.yaml", "--config_path=converted_",
                   "--config_path=backbone_", "--config_path=C.yaml")
# Translated although in code marks.
TRANSLATED = {"文件: 位置: 内容": "file: place: what"}
# Names of the repository's files; pages may name a file without its folder.
NAMES = {path.name for folder in ("ascend310_infer", "docker", "docs", "faster_rcnn", "mask_rcnn", "refinedet", "tests", "utils")
         for path in (ROOT / folder).rglob("*.*")}
# Stands for the pages' folder DATA: annotations that a command reads before it runs anything.
COCO = {"images": [{"id": 1, "file_name": "1.png", "width": 40, "height": 30}], "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0}]}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.M | re.S)
FILE = re.compile(r"[\w./-]+\.(py|yaml|md|sh|toml)")


def named(path):
    return path.relative_to(ROOT).as_posix()


def in_every_readme(test):
    return pytest.mark.parametrize("readme", READMES, ids=named)(test)


def in_every_english_page(test):
    """One language is enough: the tests at the end compare both."""
    return pytest.mark.parametrize("readme", PAGES, ids=named)(test)


def of_every_model(test):
    return pytest.mark.parametrize("model", MODELS, ids=named)(test)


def in_both_languages(test):
    return pytest.mark.parametrize("page", PAGES, ids=named)(test)


@pytest.fixture
def written(tmp_path):
    """A folder with a data set `DATA`, for the configurations that a page has the reader write."""
    (tmp_path / "DATA").mkdir()
    (tmp_path / "DATA" / "train.json").write_text(json.dumps(COCO), encoding="utf-8")
    return tmp_path


# ------------------------------------------------------------------------------------------------ reading


def blocks(text):
    """[(language, content)] of the fenced blocks."""
    return FENCE.findall(text)


def inline_codes(text):
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def sections(text):
    """[(heading level, text until the next heading)]; the first is the text before any heading."""
    parts = re.split(r"^(#+) .*$", FENCE.sub("", text), flags=re.M)
    return [(0, parts[0]), *((len(mark), part) for mark, part in zip(parts[1::2], parts[2::2]))]


def heredocs(content):
    """(the commands without the bodies of `cat > FILE <<'END'`, {FILE: body})."""
    pattern = re.compile(r"^cat > (\S+) <<'END'\n(.*?)^END$\n?", re.M | re.S)
    return pattern.sub("", content), dict(pattern.findall(content))


def created(text):
    return {name: body for language, content in blocks(text) if language == "bash"
            for name, body in heredocs(content)[1].items()}


def typed_commands(readme):
    """(working folder, words) of every command. A block starts in the root; `cd` holds until the end of the block."""
    for language, content in blocks(readme.read_text(encoding="utf-8")):
        folder = ROOT
        for line in heredocs(content)[0].replace("\\\n", " ").splitlines() if language == "bash" else ():
            words = shlex.split(line, comments=True)
            if words[:1] == ["cd"]:
                folder = next(path for path in (folder / words[1], ROOT / words[1]) if path.is_dir())
            elif words:
                yield folder, words


def script_of(folder, words):
    """(script, arguments) of a python command."""
    module = words[1] == "-m"
    name = words[2].replace(".", "/") + ".py" if module else words[1]
    folder = folder if (folder / name).is_file() else ROOT
    return (folder / name).resolve(), words[3 if module else 2:]


@lru_cache
def flags_of(script):
    """The flags in a script's --help."""
    done = commands.run(["python", script, "--help"])
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"--\w+", done.stdout))


# -------------------------------------------------------------------------------------- what they name exists


@in_every_readme
def test_links_lead_somewhere(readme):
    """Targets of links are existing files and headings."""
    text = FENCE.sub("", readme.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings(text), target
        elif "://" not in target:
            path, _, anchor = target.partition("#")
            assert (readme.parent / path).exists(), target
            assert not anchor or anchor in headings((readme.parent / path).read_text(encoding="utf-8")), target


def headings(text):
    """The anchors of a page."""
    return {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-")
            for line in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)}


@in_every_readme
def test_named_files_exist(readme):
    text = readme.read_text(encoding="utf-8")
    known = WRITTEN | set(created(text))
    for code in inline_codes(text):
        if FILE.fullmatch(code) and Path(code).name not in known:
            assert code in NAMES or any((folder / code).is_file() for folder in (readme.parent, ROOT)), code


def test_directory_map():
    tree = next(content for language, content in blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")) if not language)
    for line in tree.splitlines():
        assert (ROOT / line.split()[0]).exists(), line


def test_the_pages_are_short_and_in_both_languages():
    for page, most in LENGTHS.items():
        for path in (page, page.with_stem("README_CN")):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= most, path
    english = {path for path in (ROOT / "docs").rglob("*.md") if not path.stem.endswith("_CN")}
    assert english == {page for page in PAGES if ROOT / "docs" in page.parents} and len(english) > 15


# ------------------------------------------------------------------------------------- commands are understood


@in_every_english_page
def test_commands_are_understood(readme, written):
    """Scripts exist and have the flags, and the configuration accepts the values."""
    text = readme.read_text(encoding="utf-8")
    for name, body in created(text).items():
        (written / name).write_text(body.replace("DATA", str(written / "DATA")), encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for folder, words in typed_commands(readme):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, words
        elif words[0] == "docker":
            assert (ROOT / words[words.index("-f") + 1]).is_file(), words
        elif words[:2] == ["bash", "docker/docker_start.sh"]:
            assert len(words) >= 5 and (ROOT / words[1]).is_file(), words
        elif words[0] == "python":
            script, arguments = script_of(folder, words)
            if script == LAUNCHER:      # another command follows the launcher's options
                count = next(i for i, argument in enumerate(arguments) if not argument.startswith("--"))
                check_python(script, arguments[:count], written)
                script, arguments = script_of(folder, ["python", *arguments[count:]])
            check_python(script, arguments, written)
        elif re.match(r"\S*(scripts|test)/", script := next((word for word in words if word.endswith(".sh")), "")):
            assert (folder / script).is_file() or (ROOT / script).is_file(), words
        elif words[0] == "bash":
            assert (folder / words[1]).is_file() or (ROOT / words[1]).is_file(), words
        elif words[0] == "cmake":
            assert words[1] == "--build" or (ROOT / words[words.index("-S") + 1] / "CMakeLists.txt").is_file(), words
        elif words[0].endswith("build/detect"):
            source = (ROOT / "ascend310_infer" / "src" / "main.cc").read_text(encoding="utf-8")
            assert all(f'"{word[2:].partition("=")[0]}"' in source for word in words[1:]), words
        else:
            assert words[0] in ("source", "cp", "export"), words


def check_python(script, arguments, written):
    """`written` is the folder of the configurations that the reader writes."""
    assert script.is_file(), script
    flags = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    if script not in ENTRY_POINTS:
        assert set(flags) <= flags_of(script), (script.name, flags)
        return
    model = MODELS[script.parent]
    names = *KEYS[script.parent], *model.ALIASES, *model.SEVERAL, "config_path", "help"
    assert set(flags) <= {f"--{name}" for name in names}, flags
    argv = []
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag == "--config_path" and (written / value).is_file():
            argument = f"{flag}={written / value}"
        if flag == "--data_root":
            argument = f"{flag}={written / 'DATA'}"
        if not argument.startswith((*WRITTEN_CONFIGS, "--help")):
            argv.append(argument)
    model.parse_config(argv, script.parent / "default_config.yaml")


@pytest.mark.parametrize("name", ["configuration.md", "configuration_CN.md"])
def test_written_configurations_hold_only_their_changes(name, written):
    files = created((ROOT / "docs" / name).read_text(encoding="utf-8"))
    for file, body in files.items():
        (written / file).write_text(body.replace("DATA", str(written / "DATA")), encoding="utf-8")
    mine, longer = (faster_config.load_config(written / file) for file in ("mine.yaml", "longer.yaml"))
    assert longer.anno_path == mine.anno_path == str(written / "DATA" / "train.json")
    assert (mine.epoch_size, longer.epoch_size) == (12, 24) and len(files["mine.yaml"].splitlines()) == 3


@in_every_english_page
def test_flags_in_the_text_exist(readme):
    models = [readme.parent] if readme.parent in MODELS else MODELS
    scripts = {model / "src" / f"{name}.py" for model in models for name in ("convert_checkpoint", "split_data", "xml2coco")}
    scripts |= {LAUNCHER, ROOT / "tests" / "hardware.py"}
    scripts |= {ROOT / "utils" / "mindrecord" / f"{name}.py" for name in ("check", "convert")}
    scripts |= {ROOT / "utils" / "hccl_tools" / f"{name}.py" for name in ("hccl_tools", "merge_hccl")}
    keys = {name for model in models for name in (*KEYS[model], *MODELS[model].ALIASES, *MODELS[model].RETIRED)}
    # Flags of the shell scripts.
    keys |= {name for path in ROOT.glob("*/*/*.sh") for name in re.findall(r"--(\w+)=", path.read_text(encoding="utf-8"))}
    known = {f"--{name}" for name in (*keys, "config_path", "help")}.union(
        *(flags_of(script) for script in scripts if script.is_file()))
    for code in inline_codes(readme.read_text(encoding="utf-8")):
        for flag in re.findall(r"(?:^|\s)(--\w+)(?=[=\s]|$)", code):
            assert flag in known, code


@pytest.mark.parametrize("ending", ["", "_CN"])
def test_the_pages_name_the_tools_of_the_repository(ending):
    """scripts.md names the tools that write rank tables, and old_zoo.md the Dockerfile that replaces the old image's."""
    text = (ROOT / "docs" / f"scripts{ending}.md").read_text(encoding="utf-8")
    (entry,) = re.findall(r"^- (?:A rank table|rank table) .*?(?=^\n|^- )", text, re.M | re.S)
    assert {f"../utils/hccl_tools/README{ending}.md"} <= set(re.findall(r"\]\(([^)]+)\)", entry))
    assert "hccl_tools.py" in entry and "merge_hccl.py" in entry
    text = (ROOT / "docs" / f"old_zoo{ending}.md").read_text(encoding="utf-8")
    assert re.search(r"^\| .*`docker build -t NAME \..*\| .*docker/Dockerfile\.ascend.* \|$", text, re.M)


@in_every_english_page
def test_imports_in_python_exist(readme):
    """Modules of the models and utils/ have the names that the pages import from them."""
    modules = {name: importlib.import_module(name) for name in ("faster_rcnn", "mask_rcnn", "refinedet", "utils.mindrecord")}
    for language, content in blocks(readme.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(content)) if language == "python" else ():
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                assert {item.name for item in node.names} <= set(dir(modules[node.module])), content


# ----------------------------------------------------------------------------------------- names of the old zoo


@of_every_model
@pytest.mark.parametrize(("name", "heading"), [("old_zoo.md", "retired key"), ("old_zoo_CN.md", "已停用的配置项")])
def test_names_of_the_old_zoo(model, name, heading):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    tables = re.findall(rf"^\| {heading} .*?(?=^\n|\Z)", text, re.M | re.S)
    retired = [sorted(inline_codes("\n".join(line.split("|")[1] for line in table.splitlines()))) for table in tables]
    assert sorted(MODELS[model].RETIRED) in retired
    for old, new in MODELS[model].ALIASES.items():
        assert re.search(rf"`{old}`\s*(is|即)\s*`{new}`", text), old


# ------------------------------------------------------------------------------------------- both languages


@in_both_languages
def test_both_languages_have_the_same_blocks(page):
    english, chinese = (blocks(path.read_text(encoding="utf-8")) for path in (page, page.with_stem(page.stem + "_CN")))
    assert [language for language, _ in english] == [language for language, _ in chinese]
    for (language, ours), (_, theirs) in zip(english, chinese):
        if language:
            strip = re.compile(r" *#.*$", re.M)
            assert strip.sub("", ours) == strip.sub("", theirs)
        else:       # a list of names with meanings
            assert [line.split()[0] for line in ours.splitlines()] == [line.split()[0] for line in theirs.splitlines()]


@in_both_languages
def test_both_languages_name_the_same_things(page):
    """Section by section: headings, table rows, and text in code marks."""
    english, chinese = (sections(path.read_text(encoding="utf-8")) for path in (page, page.with_stem(page.stem + "_CN")))
    assert [level for level, _ in english] == [level for level, _ in chinese]
    for (_, ours), (_, theirs) in zip(english, chinese):
        assert Counter(inline_codes(ours)) == Counter(TRANSLATED.get(code, code) for code in inline_codes(theirs)), ours
        assert ours.count("\n|") == theirs.count("\n|"), ours


@in_every_readme
def test_every_number_is_filled_in(readme):
    assert not re.findall(r"TBD[\w-]*", readme.read_text(encoding="utf-8"))


@in_every_readme
def test_no_machine_specific_paths(readme):
    text = readme.read_text(encoding="utf-8").replace("../shared/data", "")
    assert not re.findall(r"\.\./shared|/home/|/root/|/work/|/tmp/", text)
