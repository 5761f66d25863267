"""Repository files: they follow .editorconfig, and CHANGELOG.md keeps its format."""
import re
from configparser import ConfigParser

import pytest

from tests.sync_copies import find_files

SUFFIXES = {".py", ".sh", ".yaml", ".yml", ".toml", ".md", ".cc", ".h"}


@pytest.fixture(scope="module")
def editor(repo_dir):
    """The sections of .editorconfig."""
    parser = ConfigParser()
    parser.read_string("[preamble]\n" + (repo_dir / ".editorconfig").read_text(encoding="utf-8"))
    return parser


def test_editorconfig_agrees_with_the_linter(editor, repo_dir):
    assert editor["preamble"]["root"] == "true"
    (length,) = re.findall(r"^line-length = (\d+)$", (repo_dir / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert editor["*"]["max_line_length"] == length
    assert (editor["*"]["indent_size"], editor["*.{sh,yaml,yml,cc,h}"]["indent_size"]) == ("4", "2")
    assert editor["Makefile"]["indent_style"] == "tab"


def test_files_follow_editorconfig(editor, repo_dir):
    """UTF-8, LF, no trailing whitespace, a final newline, and tabs only in the Makefile."""
    assert dict(editor["*"]).items() >= {"charset": "utf-8", "end_of_line": "lf", "insert_final_newline": "true",
                                         "trim_trailing_whitespace": "true", "indent_style": "space"}.items()
    paths = [*find_files(repo_dir, SUFFIXES), *(repo_dir / name for name in ("Makefile", ".ci/run", "requirements.txt"))]
    assert repo_dir / "faster_rcnn" / "train.py" in paths
    for path in paths:
        text = path.read_bytes().decode("utf-8")
        assert "\r" not in text, path
        assert not text or text.endswith("\n"), path
        assert not re.search(r"[ \t]$", text, re.M), path
        assert path.name == "Makefile" or not re.search(r"^\t", text, re.M), path


def test_the_changelog_keeps_its_format(repo_dir):
    """https://keepachangelog.com: a section per version, groups of entries below it."""
    lines = (repo_dir / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Changelog"
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    assert all(re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", line) for line in versions[1:])
    groups = [line[4:] for line in lines if line.startswith("### ")]
    assert set(groups) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for line, following in zip(lines, lines[1:]):
        assert not line.startswith("### ") or following == "", line
