"""The Makefile, run with a fake Python that records its calls."""
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

FAKE_PYTHON = """#!/bin/bash
[ "${*: -1}" = --version ] && exit 0
echo "$(printf '[%s]' "$@")" >> "$(dirname "$0")/../calls"
[ "$1 $2" != "-m ruff" ] || exit "${RUFF_STATUS:-0}"
"""
FAKE_SHELLCHECK = """#!/bin/bash
echo "shellcheck$(printf '[%s]' "$@")" >> "$(dirname "$0")/../calls"
exit "${SHELLCHECK_STATUS:-0}"
"""
LINT = ["[-m][ruff][check][.]", "[-m][mypy]", "shellcheck[.ci/run][model/scripts/run.sh][model/test/run.sh]"]


@pytest.fixture
def make(repo_dir, run_command, tmp_path):
    """make(*arguments) -> (CompletedProcess, calls of Python), in a copy of the checkout's build files."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    checkout, venv = tmp_path / "a checkout", tmp_path / "an environment"
    (venv / "bin").mkdir(parents=True)
    checkout.mkdir()
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(repo_dir / name, checkout)
    for name, text in (("python", FAKE_PYTHON), ("shellcheck", FAKE_SHELLCHECK)):
        (venv / "bin" / name).write_text(text)
        (venv / "bin" / name).chmod(0o755)
    for name in ("scripts", "test"):
        (checkout / "model" / name).mkdir(parents=True)
        (checkout / "model" / name / "run.sh").touch()
        (checkout / "model" / name / "copy.sh").write_text("# Same as other/run.sh\n")
    (checkout / ".ci").mkdir()
    (checkout / ".ci" / "run").touch()

    def run(*arguments, **env):
        calls = venv / "calls"
        calls.unlink(missing_ok=True)
        unset = dict.fromkeys(("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV", "ARGS", "PYTHON", "MODEL", "SITE"))
        done = run_command(["make", "-C", checkout, f"VENV={venv}", *arguments], cwd=tmp_path, env={**unset, **env})
        return done, calls.read_text().splitlines() if calls.exists() else []

    run.checkout, run.venv = checkout, venv
    return run


def test_help_is_the_default_and_lists_every_target(make):
    done, calls = make()
    assert done.returncode == 0
    assert calls == []
    for target in ("venv", "demo", "test", "lint", "sync", "check", "docs"):
        assert f"make {target} " in done.stdout


def test_packages_are_installed_once_and_again_when_the_pins_change(make):
    install = "[-m][pip][install][--disable-pip-version-check][--quiet][-r][requirements-dev.txt]"
    assert make("venv")[1] == [install]
    assert make("venv")[1] == []
    with (make.checkout / "requirements.txt").open("a") as stream:
        stream.write("another==1.0\n")
    assert make("venv")[1] == [install]


def test_targets_pass_their_arguments_on(make, repo_dir):
    make("venv")
    cache = f"[-o][cache_dir={make.venv}/pytest_cache]"
    assert make("demo", "MODEL=refinedet", "ARGS=--seed=3")[1] == ["[-m][utils.demo.run][--model][refinedet][--seed=3]"]
    *lint, tests = make("test", "ARGS=-k 'one and two'")[1]
    assert lint[0] == LINT[0] and sorted(lint) == sorted(LINT)      # mypy and shellcheck run in parallel
    assert tests == f"[-m][pytest]{cache}[--numprocesses][3][--no-loadscope-reorder][tests][-k][one and two]"
    assert make("sync")[1] == ["[tests/sync_copies.py]"]
    assert make("docs", "SITE=a site")[1] == [f"[-m][mkdocs][build][--strict][--site-dir][{make.checkout / 'a site'}]"]
    *others, quick = make("check")[1]
    assert sorted(others[:-1]) == sorted(LINT) and others[-1] == "[tests/sync_copies.py][--check]"
    start = f"[-m][pytest]{cache}[-q][-m][not (slow or parity or cpp or ranks)]["
    files = quick.removeprefix(start).removesuffix("]").split("][")
    assert quick.startswith(start) and len(files) > 20 and all((repo_dir / file).is_file() for file in files)


# -------------------------------------------------------------------------------------------- .pre-commit-config.yaml

# A fault that each hook finds in an empty checkout: hook id -> (file, text).
FAULTS = {"ruff": ("utils/unused.py", "import os\n"), "mypy": ("utils/untyped.py", "def area(box):\n    return box\n"),
          "shellcheck": ("docker/unquoted.sh", "#!/bin/bash\nls $1\n"),
          "copies": ("mask_rcnn/drifted.py", "# Same as faster_rcnn/original.py\nDRIFTED = True\n")}


def hooks(repo_dir) -> dict:
    """Return {id: hook}; every hook runs on this machine, without a download."""
    content = yaml.safe_load((repo_dir / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repository,) = content["repos"]
    assert repository["repo"] == "local"
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in repository["hooks"])
    return {hook["id"]: hook for hook in repository["hooks"]}


def test_pre_commit_runs_every_check_of_lint_and_compares_the_copies(make, repo_dir, run_command):
    make("venv")
    _, wanted = make("lint")
    calls = make.venv / "calls"
    calls.unlink()
    for hook in hooks(repo_dir).values():
        done = run_command(shlex.split(hook["entry"]), cwd=make.checkout, env={"VENV": make.venv})
        assert done.returncode == 0, done.stderr
    assert sorted(calls.read_text().splitlines()) == sorted([*wanted, "[tests/sync_copies.py][--check]"])


@pytest.mark.parametrize("name", FAULTS)
def test_a_hook_fails_on_a_fault(repo_dir, run_command, tmp_path, name):
    """The hook runs this environment's programs, as .venv of a checkout."""
    if not all(shutil.which(program, path=str(Path(sys.prefix) / "bin")) for program in ("mypy", "shellcheck")):
        pytest.skip("requirements-dev.txt is not installed in this environment")
    for path in (".ci/run", "pyproject.toml", "tests/sync_copies.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(repo_dir / path, tmp_path / path)
    for path in ("faster_rcnn/original.py", "faster_rcnn/src/model_utils/__init__.py", "utils/__init__.py", ".gitattributes"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / ".venv").symlink_to(sys.prefix)
    words = shlex.split(hooks(repo_dir)[name]["entry"])
    run_command(["python", tmp_path / "tests" / "sync_copies.py"])
    clean = run_command(words, cwd=tmp_path, env={"VENV": None})
    assert clean.returncode == 0, clean.stdout + clean.stderr
    path, text = FAULTS[name]
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text(text, encoding="utf-8")
    faulty = run_command(words, cwd=tmp_path, env={"VENV": None})
    assert faulty.returncode == 1 and Path(path).name in faulty.stdout, faulty.stdout + faulty.stderr


def test_make_fails_if_a_check_fails(make):
    make("venv")
    done, calls = make("test", RUFF_STATUS="1")
    assert done.returncode != 0
    assert calls == LINT[:1]
    done, calls = make("test", SHELLCHECK_STATUS="1")
    assert done.returncode != 0
    assert sorted(calls) == sorted(LINT)


def test_a_python_without_mindspore_wheels_is_refused(make, tmp_path):
    old = tmp_path / "old python"
    old.write_text("#!/bin/bash\necho 'Python 3.11 or 3.12 is needed' >&2\nexit 1\n")
    old.chmod(0o755)
    (make.venv / "bin" / "python").unlink()
    done, _ = make("venv", f"PYTHON={old}")
    assert done.returncode != 0
    assert "Python 3.11 or 3.12 is needed" in done.stderr
    assert not (make.venv / "requirements.installed").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="packages are installed by root")
@pytest.mark.parametrize("missing", ["cmake", "c++", "ip", "chromium", ""])
def test_continuous_integration_has_what_the_tests_need(repo_dir, run_command, tmp_path, missing):
    """If a program is missing, .ci/run asks apt-get (a fake here) for the packages."""
    if not missing and not all(Path("/usr/include", name).is_file() for name in ("jpeglib.h", "png.h")):
        pytest.skip("libjpeg and libpng are not here to be found")
    for name in {"cmake", "c++", "ip", "chromium", "apt-get", "make"} - {missing}:
        (tmp_path / name).write_text(f'#!{shutil.which("bash")}\necho {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    done = run_command([shutil.which("bash"), repo_dir / ".ci" / "run"], env={"PATH": tmp_path})
    assert done.returncode == 0, done.stderr
    *installed, made = done.stdout.splitlines()
    assert made == "make test"
    assert installed[:1] == (["apt-get update -qq"] if missing else [])
    assert not missing or {"chromium", "cmake", "make", "g++", "iproute2", "libjpeg-dev", "libpng-dev"} <= set(installed[1].split())
