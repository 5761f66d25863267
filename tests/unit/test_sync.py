"""The tool that keeps copies equal to their originals, and the state of this repository's copies."""
import shutil
import stat
import subprocess

import pytest

from tests.sync_copies import LISTED, SyncError, find_copies, find_files, sync, sync_attributes, wanted_text

ORIGINAL = '"""FasterRcnn head."""\nNAME = "faster_rcnn"\n'


@pytest.fixture
def tree(tmp_path):
    """tree(path, text) -> the written file, under a root with a space in its name."""
    root = tmp_path / "a root"

    def write(path, text):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode("utf-8"))
        return target

    write.root = root
    write("faster_rcnn/head.py", ORIGINAL)
    return write


def run(tree, check):
    lines = []
    return sync(tree.root, check, lines.append), lines


def test_this_repository_has_no_drifted_copy(repo_dir):
    lines = []
    assert sync(repo_dir, True, lines.append) + sync_attributes(repo_dir, True, lines.append) == 0, "\n".join(lines)


def test_equal_copy_passes(tree):
    tree("mask_rcnn/head.py", "# Same as faster_rcnn/head.py\n" + ORIGINAL)
    assert run(tree, True) == (0, [])


def test_drifted_copy_is_shown_then_rewritten(tree):
    copy = tree("mask_rcnn/head.py", "# Same as faster_rcnn/head.py\nNAME = 'old'\n")
    count, lines = run(tree, True)
    assert count == 1
    assert '-NAME = \'old\'\n+"""FasterRcnn head."""\n+NAME = "faster_rcnn"' in lines[0]
    assert copy.read_text() == "# Same as faster_rcnn/head.py\nNAME = 'old'\n"
    assert run(tree, False) == (0, ["rewrote mask_rcnn/head.py"])
    assert copy.read_text() == "# Same as faster_rcnn/head.py\n" + ORIGINAL
    assert run(tree, True) == (0, [])


def test_renames_are_made_in_one_pass(tree):
    marker = "# Same as faster_rcnn/head.py with FasterRcnn -> faster_rcnn, faster_rcnn -> mask_rcnn\n"
    copy = tree("mask_rcnn/head.py", marker)
    run(tree, False)
    assert copy.read_text() == marker + '"""faster_rcnn head."""\nNAME = "mask_rcnn"\n'


def test_marker_below_the_shebang_and_the_mode_stay(tree):
    tree("faster_rcnn/run.sh", "#!/usr/bin/env bash\necho hi\n")
    copy = tree("mask_rcnn/run.sh", "#!/usr/bin/env bash\n# Same as faster_rcnn/run.sh\n")
    copy.chmod(0o755)
    run(tree, False)
    assert copy.read_text() == "#!/usr/bin/env bash\n# Same as faster_rcnn/run.sh\necho hi\n"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o755


def test_line_endings_count(tree):
    tree("mask_rcnn/head.py", "# Same as faster_rcnn/head.py\n" + ORIGINAL.replace("\n", "\r\n"))
    assert run(tree, True)[0] == 1


@pytest.mark.parametrize(("marker", "expected"), [
    ("# Same as faster_rcnn/gone.py", "its original faster_rcnn/gone.py is not in the repository"),
    ("# Same as ../outside.py", "its original ../outside.py is not in the repository"),
    ("# Same as mask_rcnn/head.py", "names itself"),
    ("# Same as faster_rcnn/copy.py", "is a copy too"),
    ("# Same as faster_rcnn/head.py with Nothing -> Something", "'Nothing' is to be renamed, but does not stand in"),
    ("# Same as faster_rcnn/head.py with FasterRcnn", "expected `with OLD -> NEW, OLD2 -> NEW2`, got 'FasterRcnn'"),
])
def test_markers_that_cannot_be_followed(tree, marker, expected):
    tree("../outside.py", "")
    tree("faster_rcnn/copy.py", "# Same as faster_rcnn/head.py\n" + ORIGINAL)
    copy = tree("mask_rcnn/head.py", marker + "\n" + ORIGINAL)
    with pytest.raises(SyncError, match=f"^mask_rcnn/head.py: .*{expected}".replace("`", ".")):
        wanted_text(copy, tree.root)
    for check in (True, False):
        count, lines = run(tree, check)
        assert (count, len(lines)) == (1, 1)
    assert copy.read_text() == marker + "\n" + ORIGINAL


def test_ignored_files(tree):
    text = "# Same as faster_rcnn/gone.py\n"
    for path in (".git/a.py", "output/a.py", "__pycache__/a.py", "env/lib/a.py", "picture.png"):
        tree(path, text)
    tree("env/pyvenv.cfg", "")
    tree("mask_rcnn/late.py", "\n" + text)
    assert find_copies(tree.root) == []


# ----------------------------------------------------------------------------------------------- .gitattributes

COPY = "# Same as faster_rcnn/head.py\n" + ORIGINAL
TREE = {"mask_rcnn/head.py": COPY, "mask_rcnn/train.py": "1\n", "mask_rcnn/trunk/__init__.py": "", "mask_rcnn/trunk/a.py": COPY,
        "mask_rcnn/trunk/deep/b.py": COPY, "refinedet/told/a.py": COPY, "refinedet/told/README.md": "# About a.py\n"}


def attributes(tree, check):
    lines = []
    return sync_attributes(tree.root, check, lines.append), lines


def generated(folder, attributes_file, paths) -> set:
    """Return the paths that git marks as generated. They need not exist."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    folder.mkdir()
    subprocess.run(["git", "init", "-q", folder], check=True)
    shutil.copy(attributes_file, folder / ".gitattributes")
    done = subprocess.run(["git", "-C", folder, "check-attr", "-z", "--stdin", "linguist-generated"], text=True, check=True,
                          input="\0".join(paths), capture_output=True)
    fields = done.stdout.split("\0")
    return {path for path, value in zip(fields[::3], fields[2::3]) if value == "set"}


def test_copies_are_listed_and_the_rest_of_the_file_stays(tree, tmp_path):
    for path, text in TREE.items():
        tree(path, text)
    listed = tree(".gitattributes", f"*.png binary\n\n{LISTED}\nmask_rcnn/gone.py linguist-generated\n")
    before = listed.read_text()
    count, lines = attributes(tree, True)
    assert count == 1 and "-mask_rcnn/gone.py linguist-generated\n+mask_rcnn/head.py linguist-generated" in lines[0]
    assert listed.read_text() == before
    assert attributes(tree, False) == (0, ["rewrote .gitattributes"])
    assert listed.read_text() == (f"*.png binary\n\n{LISTED}\nmask_rcnn/head.py linguist-generated\n"
                                  "mask_rcnn/trunk/** linguist-generated\nrefinedet/told/a.py linguist-generated\n")
    assert attributes(tree, True) == (0, [])
    assert generated(tmp_path / "git", listed, TREE) == {path for path, text in TREE.items() if text == COPY} | {
        "mask_rcnn/trunk/__init__.py"}


def test_a_folder_is_listed_only_while_it_holds_nothing_but_copies(tree):
    tree("mask_rcnn/trunk/a.py", COPY)
    attributes(tree, False)
    tree("mask_rcnn/trunk/own.py", "1\n")
    count, lines = attributes(tree, True)
    assert count == 1
    assert lines[0].endswith("-mask_rcnn/** linguist-generated\n+mask_rcnn/trunk/a.py linguist-generated")


def test_git_marks_the_copies_of_this_repository_as_generated(repo_dir, tmp_path):
    """Git marks no other file with text."""
    copies = {path.relative_to(repo_dir).as_posix() for path in find_copies(repo_dir)}
    own = {path.relative_to(repo_dir).as_posix() for path in find_files(repo_dir, {".py", ".sh", ".yaml", ".md", ".cc", ".h"})
           if path.stat().st_size} - copies
    assert generated(tmp_path / "git", repo_dir / ".gitattributes", sorted(copies | own)) == copies


def test_command(tree, run_command, repo_dir, tmp_path):
    copy = tree("mask_rcnn/head.py", "# Same as faster_rcnn/head.py\n")
    command = ["python", repo_dir / "tests" / "sync_copies.py", f"--root={tree.root}"]
    checked = run_command([*command, "--check"], cwd=tmp_path)
    assert checked.returncode == 1
    assert "files that differ from what `make sync` writes: 2" in checked.stdout      # the copy and .gitattributes
    assert run_command(command, cwd=tmp_path).returncode == 0
    assert copy.read_text() == "# Same as faster_rcnn/head.py\n" + ORIGINAL
    assert run_command([*command, "--check"], cwd=tmp_path).returncode == 0
