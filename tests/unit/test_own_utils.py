"""`utils` is the folder beside the model, even if another package has the same name."""
import sys

import pytest

FIND = ("import importlib, sys; sys.path.insert(0, sys.argv[1]); {before}"
        "from src.model_utils.own_utils import use_own_utils; use_own_utils(); "
        "import utils.mindrecord.manifest, utils.launch; print(utils.mindrecord.__file__)")


@pytest.fixture
def other(tmp_path):
    """Folder for PYTHONPATH with another package named utils, which also has a mindrecord."""
    for package in ("utils", "utils/mindrecord"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("x = 1\n")
    return tmp_path


@pytest.mark.parametrize("model", ["faster_rcnn", "mask_rcnn", "refinedet"])
@pytest.mark.parametrize("before", ["", "import utils.mindrecord; "])
def test_another_package_on_the_path(run_command, repo_dir, other, model, before):
    done = run_command(["python", "-c", FIND.format(before=before), repo_dir / model], cwd=other, env={"PYTHONPATH": other})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(repo_dir / "utils" / "mindrecord" / "__init__.py")


def test_folder_inside_the_model_takes_precedence(monkeypatch, tmp_path):
    from faster_rcnn.src.model_utils.own_utils import use_own_utils

    for name in [name for name in sys.modules if name.partition(".")[0] == "utils"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "utils", sys)      # restored at the end
    for folder in ("model/utils", "utils"):
        (tmp_path / folder / "mindrecord").mkdir(parents=True)
        (tmp_path / folder / "__init__.py").write_text(f"place = {folder!r}\n")
    use_own_utils(tmp_path / "model")
    assert sys.modules["utils"].place == "model/utils"
    (tmp_path / "model" / "utils" / "mindrecord").rmdir()       # now an unrelated utils
    use_own_utils(tmp_path / "model")
    assert sys.modules["utils"].place == "utils"


def test_without_a_folder_the_imported_utils_stays(monkeypatch, tmp_path):
    from faster_rcnn.src.model_utils.own_utils import use_own_utils

    monkeypatch.setitem(sys.modules, "utils", sys)
    use_own_utils(tmp_path / "model")
    assert sys.modules["utils"] is sys
