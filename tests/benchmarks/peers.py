"""Time torchvision's detectors, and ONNX files in other runtimes, on the CPU; print one JSON line.

usage: python tests/benchmarks/peers.py PROGRAM [--model faster_rcnn] [--height 768] [--width 1280] [--batch 2] [--threads 2]
                                        [--warm 2] [--steps 5] [--onnx FILE] [--serve]

Run this in an environment with requirements-peers.txt installed; it imports no model code of the zoo. PROGRAM:

torchvision-train         a training step of ResNet-50 FPN, random weights, stem and layer1 frozen, SGD
torchvision-infer         inference, post-processing included; masks are pasted into the image
torchvision-onnxruntime   the same, exported to --onnx, one image at a time
torchvision-openvino      in OpenVINO, computing in float32
onnxruntime, openvino     an ONNX file of the zoo's export.py

Each image has 8 objects, and a detector returns about 100 boxes. compare.py starts this with --serve.
"""
import importlib
import importlib.util
import math
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.benchmarks.measuring import OBJECTS, run_apart, run_worker, worker_parser  # noqa: E402

CLASSES = 81            # with background
# Scale of the last norm of each bottleneck. With scale 1, the activations of random weights grow until they overflow.
RESIDUAL_SCALE = 0.35
CANDIDATES = 1000       # (box, class) pairs that reach NMS


def build_detector(args):
    """Return torchvision's detector with random weights, for images of exactly this size."""
    import torch
    import torchvision
    from torchvision.models.detection import FasterRCNN, MaskRCNN
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops.misc import FrozenBatchNorm2d

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    body = torchvision.models.resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    for module in body.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            module.bn3.weight.fill_(RESIDUAL_SCALE)
    detector = MaskRCNN if args.model == "mask_rcnn" else FasterRCNN
    # Inference resizes despite _skip_resize; these bounds keep the size.
    short, long = sorted((args.height, args.width))
    return detector(_resnet_fpn_extractor(body, 3), num_classes=CLASSES, _skip_resize=True, min_size=short, max_size=long)


def versions(*names: str) -> dict:
    """Return the versions of these packages as one string."""
    return {"version": ", ".join(f"{name} {importlib.import_module(name).__version__.split('-')[0]}" for name in names)}


def random_images(args) -> list:
    import torch

    return list(torch.rand(args.batch, 3, args.height, args.width, generator=torch.Generator().manual_seed(0)))


def random_targets(args) -> list:
    """Return boxes, labels and, for Mask R-CNN, masks (ellipses inside the boxes) per image."""
    import torch

    random, targets = torch.Generator().manual_seed(1), []
    size = torch.tensor([args.width, args.height])
    rows, columns = torch.meshgrid(torch.arange(args.height), torch.arange(args.width), indexing="ij")
    for _ in range(args.batch):
        corner = torch.rand(OBJECTS, 2, generator=random) * 0.6
        side = 0.05 + torch.rand(OBJECTS, 2, generator=random) * 0.3
        target = {"boxes": torch.cat([corner * size, (corner + side) * size], 1),
                  "labels": torch.randint(1, CLASSES, (OBJECTS,), generator=random)}
        if args.model == "mask_rcnn":
            (x, y), (half_x, half_y) = ((corner + side / 2) * size).T[..., None, None], (side / 2 * size).T[..., None, None]
            target["masks"] = (((columns - x) / half_x) ** 2 + ((rows - y) / half_y) ** 2 <= 1).to(torch.uint8)
        targets.append(target)
    return targets


def train_torchvision(args) -> tuple:
    import torch

    net, images, targets = build_detector(args).train(), random_images(args), random_targets(args)
    optimizer = torch.optim.SGD([param for param in net.parameters() if param.requires_grad], 1e-4, momentum=0.9, weight_decay=1e-4)

    def step():
        optimizer.zero_grad()
        loss = sum(net(images, targets).values())
        loss.backward()
        optimizer.step()
        if not math.isfinite(loss.item()):
            raise ArithmeticError(f"the loss is {loss.item()}")

    return step, versions("torchvision", "torch")


def let_pass(net, images) -> None:
    """Set the score threshold so that CANDIDATES (box, class) pairs pass it: random weights give low scores."""
    import torch

    seen = []
    hook = net.roi_heads.box_predictor.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    with torch.inference_mode():
        net(images)
    hook.remove()
    scores = seen[0].softmax(-1)[:, 1:].flatten()
    net.roi_heads.score_thresh = float(scores.kthvalue(max(1, len(scores) - CANDIDATES)).values)


def infer_torchvision(args) -> tuple:
    import torch

    net, images = build_detector(args).eval(), random_images(args)
    let_pass(net, images[:1])

    @torch.inference_mode()
    def infer():
        return net(images)

    return infer, versions("torchvision", "torch") | {"detections": len(infer()[0]["boxes"])}


def write_torchvision(args) -> None:
    """Export the detector to args.onnx if the file does not exist."""
    if Path(args.onnx).exists():
        return
    import torch

    net, image = build_detector(args).eval(), random_images(args)[:1]
    let_pass(net, image)
    partial = f"{args.onnx}.part"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # tracing warns about each shape, but all images here have one size
        torch.onnx.export(net, (image,), partial, opset_version=17, dynamo=False)
    Path(partial).replace(args.onnx)


def input_arrays(names_and_shapes, args) -> list:
    """Return {input: array} per image: the image, with or without a batch axis, and image_info for the zoo's files."""
    import numpy as np

    random, feeds = np.random.default_rng(0), []
    info = np.array([[args.height, args.width, 1, 1, args.height, args.width]], np.float32)
    for _ in range(args.batch):
        feeds.append({name: info if rank == 2 else random.random((1, 3, args.height, args.width)[4 - rank:], np.float32)
                      for name, rank in names_and_shapes})
    return feeds


def run_onnxruntime(args) -> tuple:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(args.onnx, options, providers=["CPUExecutionProvider"])
    feeds = input_arrays([(item.name, len(item.shape)) for item in session.get_inputs()], args)

    def infer():
        return [session.run(None, feed) for feed in feeds]

    return infer, versions("onnxruntime") | {"detections": infer()[0][0].shape[-2]}


def run_openvino(args) -> tuple:
    import openvino

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": args.threads})
    # By default OpenVINO computes in bfloat16 where the processor supports it; everything else here computes in float32.
    network = core.compile_model(args.onnx, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    feeds = input_arrays([(item.get_any_name(), len(item.get_partial_shape())) for item in network.inputs], args)

    def infer():
        return [list(network(feed).values()) for feed in feeds]

    return infer, versions("openvino") | {"detections": infer()[0][0].shape[-2]}


def exported_first(run):
    """Return `run` preceded by the export of torchvision's detector."""
    def export_and_run(args) -> tuple:
        runtime = "onnxruntime" if run is run_onnxruntime else "openvino"
        for name in (runtime, "onnx", "torchvision"):       # fail before the export if a package is missing
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}")
        run_apart(write_torchvision, args)
        return run(args)

    return export_and_run


PROGRAMS = {
    "torchvision-train": train_torchvision,
    "torchvision-infer": infer_torchvision,
    "torchvision-onnxruntime": exported_first(run_onnxruntime),
    "torchvision-openvino": exported_first(run_openvino),
    "onnxruntime": run_onnxruntime,
    "openvino": run_openvino,
}


def main() -> None:
    parser = worker_parser(__doc__.splitlines()[0], PROGRAMS)
    args = parser.parse_args()
    if not args.onnx and args.program.endswith(("onnxruntime", "openvino")):
        parser.error(f"{args.program} needs --onnx")
    run_worker(args, PROGRAMS)


if __name__ == "__main__":
    main()
