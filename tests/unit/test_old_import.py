"""`from src.FasterRcnn.faster_rcnn_resnet import Faster_Rcnn_Resnet`, as in programs for the old zoo."""
import pytest

from faster_rcnn.src.FasterRcnn.faster_rcnn import build_network
from faster_rcnn.src.FasterRcnn.faster_rcnn_resnet50v1 import Faster_Rcnn_Resnet
from faster_rcnn.src.model_utils.config import InputError, save_config
from tests.narrow_network import narrow_backbone, narrow_config

PROGRAM = """
import sys
from src.model_utils.config import load_config
from src.FasterRcnn.{module} import Faster_Rcnn_Resnet
net = Faster_Rcnn_Resnet(config=load_config(sys.argv[1]))
print(type(net).__name__, len(list(net.get_parameters())))
"""


@pytest.mark.parametrize(("module", "backbone"), [("faster_rcnn_resnet", "resnet_v1.5_50"), ("faster_rcnn_resnet", "resnet_v1_101"),
                                                  ("faster_rcnn_resnet50v1", "resnet_v1_50")])
def test_it_builds_the_network(run_command, repo_dir, tmp_path, module, backbone):
    config = narrow_config(**narrow_backbone(backbone))
    save_config(config, tmp_path / "narrow.yaml")
    done = run_command(["python", "-c", PROGRAM.format(module=module), tmp_path / "narrow.yaml"], cwd=repo_dir / "faster_rcnn")
    assert done.stdout == f"FasterRcnn {len(list(build_network(config).get_parameters()))}\n", done.stderr


def test_the_module_of_one_backbone_refuses_others():
    with pytest.raises(InputError, match=r"backbone: expected resnet_v1_50, got resnet_v1\.5_50; for other backbones import "):
        Faster_Rcnn_Resnet(narrow_config())
