"""Fixtures for the tests of commands: read-only data sets, and the check of a user's error message."""
import pytest

from tests import cpp_program, script_calls, toy_data


@pytest.fixture(scope="module", autouse=True)
def _eager(eager):
    """Run commands eagerly, except for tests that request `compiled`."""


@pytest.fixture(scope="session")
def coco(tmp_path_factory):
    """A data set to train on, in a folder whose name has a space."""
    return toy_data.write_noise(tmp_path_factory.mktemp("coco root"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A data set to evaluate on; toy networks find every object in it."""
    return toy_data.write_quarters(tmp_path_factory.mktemp("my data"))


@pytest.fixture(scope="session")
def one_line():
    """one_line(CompletedProcess, program) -> the error line; checks that it is the only one and that the status is 2."""
    def check(result, program: str) -> str:
        assert result.returncode == 2, result.stdout + result.stderr
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith(f"{program}: error: "), result.stderr
        return lines[0]

    return check


@pytest.fixture(scope="session")
def scripts_checkout(tmp_path_factory):
    """A copy of the repository that holds only the shell scripts."""
    return script_calls.copy_checkout(tmp_path_factory.mktemp("a checkout"))


@pytest.fixture
def toy_interface(monkeypatch):
    """The package faster_rcnn with a toy in place of its network: see toy_network.py."""
    from faster_rcnn.src import network_define
    from faster_rcnn.src.model_utils.inference import export
    from faster_rcnn.src.model_utils.layers import convolution
    from tests import toy_network

    def build_network(config, fast):
        return toy_network.ToyDetector(config.num_classes)

    monkeypatch.setattr(network_define, "LOSS_NAMES", toy_network.LOSS_NAMES)
    for module in (network_define, export):
        monkeypatch.setattr(module, "build_network", build_network)
    monkeypatch.setattr(network_define, "set_first_weights", lambda *_: None)
    monkeypatch.setattr(convolution, "keep_filters", lambda _: None)


@pytest.fixture
def caller(scripts_checkout, tmp_path):
    """caller.call(model, command, **environment), caller.started(): see script_calls.py."""
    return script_calls.Caller(scripts_checkout, tmp_path)


@pytest.fixture(scope="session")
def cpp_lite(tmp_path_factory):
    """The MindSpore Lite folder."""
    return cpp_program.lite_home(tmp_path_factory.mktemp("lite"))


@pytest.fixture(scope="session", name="cpp_program")
def built_program(cpp_lite, tmp_path_factory):
    """The folder that holds the build of ascend310_infer."""
    return cpp_program.build(tmp_path_factory.mktemp("a build"), cpp_lite)


@pytest.fixture(scope="session")
def cpp_sanitized(cpp_lite, tmp_path_factory):
    """A build with AddressSanitizer and UndefinedBehaviorSanitizer."""
    # A unity build compiles faster. The other build compiles each file on its own, so it finds missing includes.
    return cpp_program.build(tmp_path_factory.mktemp("sanitized"), cpp_lite, "-DSANITIZE=ON", "-DCMAKE_BUILD_TYPE=Debug",
                             "-DCMAKE_CXX_FLAGS=-O1", "-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=0")


@pytest.fixture(scope="session")
def cpp_coco(data_dir, tmp_path_factory):
    """Real images with annotations."""
    return cpp_program.write_coco(tmp_path_factory.mktemp("a coco"), data_dir / "coco_mini")
