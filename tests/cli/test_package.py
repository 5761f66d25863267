"""The package: what the wheel holds, and that it works when installed, from another folder; also `pip install -e .`."""
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.sync_copies import find_files

MODELS = {"faster_rcnn": "faster-rcnn", "mask_rcnn": "mask-rcnn", "refinedet": "refinedet"}
# The models share all commands except these two, which depend on a model's config keys and weight names.
OWN = ("train", "convert")
COMMANDS = {"faster_rcnn": (*OWN, "eval", "infer", "export", "check", "convert-data", "postprocess"), "mask_rcnn": OWN,
            "refinedet": OWN}
PROGRAM = """
import sys
from pathlib import Path
from faster_rcnn import Detector, __file__
import mask_rcnn, refinedet

print(Path(__file__).parent.parent, mask_rcnn.Detector.__name__, refinedet.Detector.__name__)
for found in Detector(sys.argv[1], backend="mindspore")(sys.argv[2], score_thr=0.3):
    print(found.name, len(found) > 5, set(found.names) <= {"disc", "box", "bar"}, found.draw().save("drawn/"))
try:
    import utils
except ImportError:
    print("no utils")
"""


def run(*words, cwd, status=0) -> subprocess.CompletedProcess:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == status, f"{words}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def source(repo_dir, tmp_path_factory):
    """A copy of the package's sources, because setuptools writes beside them."""
    folder = tmp_path_factory.mktemp("a source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(repo_dir / name, folder)
    for name in (*MODELS, "utils"):
        shutil.copytree(repo_dir / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "output"))
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """The wheel, built from the sdist, so that the sdist must be complete too."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ".", cwd=source)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """environment(*what to install) -> bin/ of a new virtual environment that also sees this environment's packages."""
    def make(*install) -> Path:
        folder = tmp_path_factory.mktemp("environment") / "v"
        run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "these.pth").write_text(sysconfig.get_paths()["purelib"])
        run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--disable-pip-version-check", "install", "--quiet",
            "--no-deps", "--no-index", "--no-build-isolation", *install, cwd=folder.parent)
        return folder / "bin"

    return make


@pytest.fixture(scope="module")
def installed(environment, wheel):
    return environment(wheel)


def test_what_the_wheel_holds(wheel, repo_dir):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = message_from_bytes(archive.read(metadata))
    info = metadata.partition("/")[0]
    files = [path.relative_to(repo_dir) for name in (*MODELS, "utils")
             for path in find_files(repo_dir / name, {".py", ".yaml", ".html", ".css", ".js"})]
    expected = {path.as_posix() for path in files if path.parts[0] != "utils"}
    tools = [path.as_posix() for path in files if path.parts[0] == "utils" and path.parts[1] != "demo"]
    expected |= {f"{model}/{name}" for model in MODELS for name in tools}
    assert {name for name in names if not name.startswith(info)} == expected
    requirements = (repo_dir / "requirements.txt").read_text().splitlines()
    assert about.get_all("Requires-Dist") == [line for line in requirements if not line.startswith("#")]
    assert (about["Name"], about["Requires-Python"], about["License-Expression"]) == ("mindspore-detection", ">=3.11", "Apache-2.0")


def test_the_commands_of_the_wheel(installed, pictures, tmp_path):
    for model, program in MODELS.items():
        assert f"usage: {program} COMMAND" in run(installed / program, "--help", cwd=tmp_path).stdout
        for command in COMMANDS[model]:
            output = run(installed / program, command, "--help", cwd=tmp_path).stdout
            assert output.startswith("usage: ") and "--help" in output, (model, command)
        output = run(installed / program, "trian", cwd=tmp_path, status=2).stderr
        assert output.startswith(f"{program}: error: unknown command 'trian'") and output.count("\n") == 1
    output = run(installed / "refinedet", "train", "--nope", cwd=tmp_path, status=2).stderr
    assert output == "train.py: error: --nope: unknown key\n"
    checked = run(installed / "mask-rcnn", "check", "--source=coco", f"--image_dir={pictures / 'val2017'}",
                  f"--anno_path={pictures / 'annotations' / 'instances_val2017.json'}", "--masks", cwd=tmp_path)
    assert checked.stdout.startswith("images: 3 usable of 3") and "problems: none" in checked.stdout


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Checkpoint of a narrow network, with its configuration beside it."""
    import mindspore as ms

    from faster_rcnn.src.model_utils.config import save_config
    from tests.narrow_network import narrow_config, narrow_network, spread_heads

    folder = tmp_path_factory.mktemp("a model")
    config = narrow_config(test_score_thr=0.3)
    net = narrow_network(config)
    spread_heads(net)
    ms.save_checkpoint(net, str(folder / "small.ckpt"))
    save_config(config, folder / "small.yaml")
    return folder / "small.ckpt"


def test_a_program_detects_with_the_wheel(installed, checkpoint, pictures, tmp_path):
    image = sorted((pictures / "val2017").iterdir())[0]
    lines = run(installed / "python", "-c", PROGRAM, checkpoint, image, cwd=tmp_path).stdout.splitlines()
    (packages,) = installed.parent.glob("lib/python*/site-packages")
    assert lines == [f"{packages} Detector Detector", f"{image.name} True True drawn/{image.name}", "no utils"]
    assert {path.name for path in packages.iterdir() if path.is_dir() and path.suffix != ".dist-info"} <= {*MODELS, "__pycache__"}


def test_an_editable_install_reads_the_files_where_they_lie(environment, source, tmp_path):
    binaries = environment("--editable", source)
    code = ("from refinedet import Detector; import refinedet, sys; print(refinedet.__file__)\n"
            "from refinedet.src.model_utils.own_utils import own_utils; print(own_utils('mindrecord').__file__)\n"
            "import utils")
    done = run(binaries / "python", "-c", code, cwd=tmp_path, status=1)
    places = (source / "refinedet" / "__init__.py", source / "utils" / "mindrecord" / "__init__.py")
    assert done.stdout.splitlines() == [str(place) for place in places]
    assert "No module named 'utils'" in done.stderr
    assert "usage: refinedet COMMAND" in run(binaries / "refinedet", cwd=tmp_path).stdout
