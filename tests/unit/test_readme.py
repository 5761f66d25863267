"""The READMEs: what they name exists, what they type is understood, and both languages say the same."""
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
# Folder of a model -> its module of configurations.
MODELS = {ROOT / "faster_rcnn": faster_config, ROOT / "mask_rcnn": mask_config, ROOT / "refinedet": refinedet_config}
KEYS = {model: read_keys(model / "default_config.yaml") for model in MODELS}
# Entry points whose flags are the keys of the configuration.
ENTRY_POINTS = {model / f"{name}.py" for model in MODELS for name in ("train", "eval", "export", "infer")}
ENTRY_POINTS |= {ROOT / model / "postprocess.py" for model in ("faster_rcnn", "mask_rcnn", "refinedet")}
FOLDERS = [path.parent for pattern in ("README_CN.md", "*/README_CN.md", "*/*/README_CN.md")
           for path in sorted(ROOT.glob(pattern)) if not path.relative_to(ROOT).parts[0].startswith(".")]
READMES = [folder / name for folder in FOLDERS for name in ("README.md", "README_CN.md")]
LAUNCHER = ROOT / "utils" / "launch" / "run.py"
# Files that a run writes, so that they are named without being in the repository.
WRITTEN = {"config.yaml", "data.yaml"}       # of a run, of a data set in YOLO's format
# How configurations begin that commands of the READMEs write.
WRITTEN_CONFIGS = ("--config_path=output/config.yaml", "--config_path=detector.yaml", "--config_path=converted_")
# In code marks, and yet translated.
TRANSLATED = {"文件: 位置: 内容": "file: place: what"}
# Names of the repository's files, for those that are named without their folder.
NAMES = {path.name for folder in ("ascend310_infer", "docker", "docs", "faster_rcnn", "mask_rcnn", "refinedet", "tests", "utils")
         for path in (ROOT / folder).rglob("*.*")}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.M | re.S)
FILE = re.compile(r"[\w./-]+\.(py|yaml|md|sh|toml)")


def named(path):
    return path.relative_to(ROOT).as_posix()


def in_every_readme(test):
    return pytest.mark.parametrize("readme", READMES, ids=named)(test)


def of_every_model(test):
    return pytest.mark.parametrize("model", MODELS, ids=named)(test)


def in_both_languages(test):
    return pytest.mark.parametrize("folder", FOLDERS, ids=named)(test)


# ------------------------------------------------------------------------------------------------ reading


def blocks(text):
    """[(language, content)] of the fenced blocks."""
    return FENCE.findall(text)


def inline_codes(text):
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def sections(text):
    """[(level of the heading, text until the next heading)]; the first is what stands before any."""
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
    """(folder that it runs in, words) of every command; `cd` counts until the end of its block."""
    for language, content in blocks(readme.read_text(encoding="utf-8")):
        folder = readme.parent
        for line in heredocs(content)[0].replace("\\\n", " ").splitlines() if language == "bash" else ():
            words = shlex.split(line, comments=True)
            if words[:1] == ["cd"]:
                folder = next(path for path in (folder / words[1], ROOT / words[1]) if path.is_dir())
            elif words:
                yield folder, words


def script_of(folder, words):
    """(the script of a python command, its arguments); a README of utils/ types its commands in the root."""
    module = words[1] == "-m"
    name = words[2].replace(".", "/") + ".py" if module else words[1]
    folder = folder if (folder / name).is_file() else ROOT
    return (folder / name).resolve(), words[3 if module else 2:]


@lru_cache
def flags_of(script):
    """The flags in a script's own help."""
    done = commands.run(["python", script, "--help"])
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"--\w+", done.stdout))


# -------------------------------------------------------------------------------------- what they name exists


@in_every_readme
def test_links_lead_somewhere(readme):
    text = FENCE.sub("", readme.read_text(encoding="utf-8"))
    headings = {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-")
                for line in re.findall(r"^#+ (.*)$", text, re.M)}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (readme.parent / target.partition("#")[0]).exists(), target


@in_every_readme
def test_named_files_exist(readme):
    text = readme.read_text(encoding="utf-8")
    known = WRITTEN | set(created(text))
    for code in inline_codes(text):
        if FILE.fullmatch(code) and Path(code).name not in known:
            assert code in NAMES or any((folder / code).is_file() for folder in (readme.parent, ROOT)), code


@pytest.mark.parametrize("name", ["README.md", "README_CN.md"])
def test_directory_map(name):
    tree = next(content for language, content in blocks((ROOT / name).read_text(encoding="utf-8")) if not language)
    for line in tree.splitlines():
        assert (ROOT / line.split()[0]).exists(), line


# ------------------------------------------------------------------------------------- commands are understood


@in_every_readme
def test_commands_are_understood(readme, tmp_path):
    """Scripts exist, flags are theirs, and the configuration takes the values."""
    text = readme.read_text(encoding="utf-8")
    for name, body in created(text).items():
        (tmp_path / name).write_text(body, encoding="utf-8")
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
            if script == LAUNCHER:      # what follows its own options is a command too
                count = next(i for i, argument in enumerate(arguments) if not argument.startswith("--"))
                check_python(script, arguments[:count], tmp_path)
                script, arguments = script_of(folder, ["python", *arguments[count:]])
            check_python(script, arguments, tmp_path)
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
    """written: folder of the configurations that the README has the reader write."""
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
        if not argument.startswith((*WRITTEN_CONFIGS, "--help")):
            argv.append(argument)
    model.parse_config(argv, script.parent / "default_config.yaml")


@pytest.mark.parametrize("name", ["README.md", "README_CN.md"])
@pytest.mark.parametrize(("model", "lines"), zip(MODELS, (5, 4, 3)), ids=map(named, MODELS))     # "in five lines"
def test_written_configurations_hold_what_they_change(name, model, lines, tmp_path):
    files = created((model / name).read_text(encoding="utf-8"))
    assert {"mine.yaml", "longer.yaml"} <= set(files)
    for file, body in files.items():
        (tmp_path / file).write_text(body, encoding="utf-8")
    configs = {file: MODELS[model].load_config(tmp_path / file) for file in files}
    assert configs["longer.yaml"].coco_classes == configs["mine.yaml"].coco_classes
    assert len(files["mine.yaml"].splitlines()) == lines


@in_every_readme
def test_flags_in_the_text_exist(readme):
    models = [readme.parent] if readme.parent in MODELS else MODELS
    scripts = {model / "src" / f"{name}.py" for model in models for name in ("convert_checkpoint", "split_data", "xml2coco")}
    scripts |= {LAUNCHER, *(ROOT / "utils" / "mindrecord" / f"{name}.py" for name in ("check", "convert"))}
    scripts |= {ROOT / "utils" / "hccl_tools" / f"{name}.py" for name in ("hccl_tools", "merge_hccl")}
    keys = {name for model in models for name in (*KEYS[model], *MODELS[model].ALIASES, *MODELS[model].RETIRED)}
    # Those of the shell scripts.
    keys |= {name for path in ROOT.glob("*/*/*.sh") for name in re.findall(r"--(\w+)=", path.read_text(encoding="utf-8"))}
    known = {f"--{name}" for name in (*keys, "config_path", "help")}.union(
        *(flags_of(script) for script in scripts if script.is_file()))
    for code in inline_codes(readme.read_text(encoding="utf-8")):
        for flag in re.findall(r"(?:^|\s)(--\w+)(?=[=\s]|$)", code):
            assert flag in known, code


@of_every_model
def test_models_name_the_tools_of_the_repository(model):
    """Those that write rank tables, where one is asked for, and what the old image is built by now."""
    for name in ("README.md", "README_CN.md"):
        text = (model / name).read_text(encoding="utf-8")
        (told,) = re.findall(r"^- (?:A rank table|rank table) .*?(?=^\n|^- )", text, re.M | re.S)
        assert {f"../utils/hccl_tools/{name}"} <= set(re.findall(r"\]\(([^)]+)\)", told))
        assert "hccl_tools.py" in told and "merge_hccl.py" in told
        assert re.search(r"^\| .*`docker build -t NAME \..*\| .*docker/Dockerfile\.ascend.* \|$", text, re.M)


# ----------------------------------------------------------------------------------------- tables of the keys


def table_rows(text, heading):
    """Cells of the rows under a heading."""
    part = re.split(rf"^## {heading}$", text, flags=re.M)[1]
    part = re.split(r"^## ", part, flags=re.M)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("| ")]


@of_every_model
@pytest.mark.parametrize(("name", "heading"), [("README.md", "Configuration keys"), ("README_CN.md", "配置项")])
def test_groups_of_keys(model, name, heading):
    rows = table_rows((model / name).read_text(encoding="utf-8"), heading)[1:]
    assert [re.match(r"[A-Za-z ]+", row[0])[0].strip() for row in rows] == list(
        dict.fromkeys(key.section for key in KEYS[model].values()))
    for group, keys in rows:
        for key in inline_codes(keys):
            assert KEYS[model][key].section == re.match(r"[A-Za-z ]+", group)[0].strip(), key


@of_every_model
@pytest.mark.parametrize(("name", "heading"), [("README.md", "Coming from the old zoo"), ("README_CN.md", "从旧模型库迁移")])
def test_names_of_the_old_zoo(model, name, heading):
    text = (model / name).read_text(encoding="utf-8")
    rows = table_rows(text, heading)
    start = next(number for number, row in enumerate(rows) if row[0] in ("retired key", "已停用的配置项"))
    assert sorted(key for row in rows[start:] for key in inline_codes(row[0])) == sorted(MODELS[model].RETIRED)
    for old, new in MODELS[model].ALIASES.items():
        assert re.search(rf"`{old}`\s*(is|即)\s*`{new}`", text), old


# ------------------------------------------------------------------------------------------- both languages


@in_both_languages
def test_both_languages_have_the_same_blocks(folder):
    english, chinese = (blocks((folder / name).read_text(encoding="utf-8")) for name in ("README.md", "README_CN.md"))
    assert [language for language, _ in english] == [language for language, _ in chinese]
    for (language, ours), (_, theirs) in zip(english, chinese):
        if language:
            strip = re.compile(r" *#.*$", re.M)
            assert strip.sub("", ours) == strip.sub("", theirs)
        else:       # a list of names with their meaning
            assert [line.split()[0] for line in ours.splitlines()] == [line.split()[0] for line in theirs.splitlines()]


@in_both_languages
def test_both_languages_name_the_same_things(folder):
    """Section by section: headings, rows of tables, and what stands in code marks."""
    english, chinese = (sections((folder / name).read_text(encoding="utf-8")) for name in ("README.md", "README_CN.md"))
    assert [level for level, _ in english] == [level for level, _ in chinese]
    for (_, ours), (_, theirs) in zip(english, chinese):
        assert Counter(inline_codes(ours)) == Counter(TRANSLATED.get(code, code) for code in inline_codes(theirs)), ours
        assert ours.count("\n|") == theirs.count("\n|"), ours


@in_every_readme
def test_every_number_is_filled_in(readme):
    assert not re.findall(r"TBD[\w-]*", readme.read_text(encoding="utf-8"))


@in_every_readme
def test_no_path_of_one_machine(readme):
    text = readme.read_text(encoding="utf-8").replace("../shared/data", "")
    assert not re.findall(r"\.\./shared|/home/|/root/|/work/|/tmp/", text)
