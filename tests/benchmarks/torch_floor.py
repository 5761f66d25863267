"""Time a plain network in PyTorch on the CPU, the lower bound for step.py; print one JSON line.

usage: python tests/benchmarks/torch_floor.py [--model faster_rcnn] [--height 768] [--width 1280] [--batch 2] [--threads 2]
                                              [--steps 5]

PyTorch is not a dependency of this project: run this with a Python that has it. For faster_rcnn and mask_rcnn, the network is a
ResNet-50 with its norms folded into the convolutions' biases and the stem and layer1 frozen. For refinedet, it is all of its
convolutions, without matching, losses and NMS. `fwd_bwd_s`: forward and backward of the batch; `fwd_s`: forward of the batch;
`fwd_one_s`: forward of one image. `*_cpu_s`: CPU seconds of all threads.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.benchmarks.measuring import medians, peak_rss_mb, timed  # noqa: E402


class Bottleneck(nn.Module):
    def __init__(self, entering: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(entering, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1)
        self.conv3 = nn.Conv2d(width, width * 4, 1)
        self.downsample = nn.Conv2d(entering, width * 4, 1, stride) if stride > 1 or entering != width * 4 else None

    def forward(self, x):
        y = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return torch.relu(self.conv3(y) + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3)
        self.layer1, entering = self.layer(64, 64, 3, 1)
        self.layer2, entering = self.layer(entering, 128, 4, 2)
        self.layer3, entering = self.layer(entering, 256, 6, 2)
        self.layer4, entering = self.layer(entering, 512, 3, 2)

    @staticmethod
    def layer(entering: int, width: int, blocks: int, stride: int):
        rest = [Bottleneck(width * 4, width, 1) for _ in range(blocks - 1)]
        return nn.Sequential(Bottleneck(entering, width, stride), *rest), width * 4

    def forward(self, x):
        with torch.no_grad():
            x = self.layer1(torch.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1))
        return self.layer4(self.layer3(self.layer2(x)))


class RefineDetConvolutions(nn.Module):
    """VGG-16, transfer connection blocks and heads with 81 classes, without the L2 normalisation of two feature maps."""

    def __init__(self, classes: int = 81, width: int = 256):
        super().__init__()
        channels, layers, taps = 3, [], []
        for group, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(repeats):
                layers += [nn.Conv2d(channels, group, 3, padding=1), nn.ReLU()]
                channels = group
            taps.append(len(layers))
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Conv2d(512, 1024, 3, padding=3, dilation=3), nn.ReLU(), nn.Conv2d(1024, 1024, 1), nn.ReLU()]
        taps.append(len(layers))
        layers += [nn.Conv2d(1024, 256, 1), nn.ReLU(), nn.Conv2d(256, 512, 3, 2, 1), nn.ReLU()]
        self.layers, self.taps = nn.ModuleList(layers), (*taps[3:], len(layers))
        sources = (512, 512, 1024, 512)
        self.first, self.second, self.last = (nn.ModuleList(nn.Conv2d(c, width, 3, padding=1) for c in entering)
                                              for entering in (sources, [width] * 4, [width] * 4))
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, width, 2, 2) for _ in range(3))
        self.arm = nn.ModuleList(nn.Conv2d(c, outputs, 3, padding=1) for c in sources for outputs in (12, 6))
        self.odm = nn.ModuleList(nn.Conv2d(width, outputs, 3, padding=1) for _ in sources for outputs in (12, 3 * classes))

    def forward(self, x):
        sources = []
        for i, layer in enumerate(self.layers, 1):
            x = layer(x)
            if i in self.taps:
                sources.append(x)
        outputs, above = [], None
        for level in (3, 2, 1, 0):
            x = self.second[level](torch.relu(self.first[level](sources[level])))
            x = x if above is None else x + self.up[level](above)
            above = torch.relu(self.last[level](torch.relu(x)))
            outputs += [head(sources[level]) for head in self.arm[2 * level:2 * level + 2]]
            outputs += [head(above) for head in self.odm[2 * level:2 * level + 2]]
        return torch.cat([output.flatten(1) for output in outputs], 1)


def median_times(function, steps: int) -> tuple:
    """Return the median wall-clock and CPU seconds, after one warm-up call."""
    function()
    return medians([timed(function) for _ in range(steps)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="faster_rcnn", choices=("faster_rcnn", "mask_rcnn", "refinedet"))
    for name, default in (("height", 768), ("width", 1280), ("batch", 2), ("threads", 2), ("steps", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net = RefineDetConvolutions() if args.model == "refinedet" else ResNet50()
    image = torch.randn(args.batch, 3, args.height, args.width)

    def forward_backward():
        net.zero_grad()
        net(image).sum().backward()

    @torch.no_grad()
    def forward(images):
        net(images)

    result = vars(args) | {"torch": torch.__version__}
    for name, function in (("fwd_bwd", forward_backward), ("fwd", lambda: forward(image)), ("fwd_one", lambda: forward(image[:1]))):
        wall, cpu = median_times(function, args.steps)
        result |= {f"{name}_s": round(wall, 3), f"{name}_cpu_s": round(cpu, 3)}
    result["peak_rss_mb"] = peak_rss_mb()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
