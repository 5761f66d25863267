"""Time a plain ResNet-50 in PyTorch on the CPU, the floor that step.py is held against; prints one JSON line.

usage: python tests/benchmarks/torch_floor.py [--height 768] [--width 1280] [--batch 2] [--threads 2] [--steps 5]

PyTorch is no dependency of this project: run this with a Python that has it. Norms are folded into the convolutions' biases.
`fwd_bwd_s`: forward and backward of the batch with the stem and layer1 frozen; `fwd_s`: forward of the batch; `fwd_one_s`: of one
picture. `*_cpu_s`: CPU seconds of all threads.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from torch import nn


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


def median_times(function, steps: int) -> tuple:
    """Medians of the clock and of the CPU seconds, after one call that does not count."""
    function()
    times = []
    for _ in range(steps):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return tuple(statistics.median(column) for column in zip(*times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("height", 768), ("width", 1280), ("batch", 2), ("threads", 2), ("steps", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net, image = ResNet50(), torch.randn(args.batch, 3, args.height, args.width)

    def forward_backward():
        net.zero_grad()
        net(image).sum().backward()

    @torch.no_grad()
    def forward(pictures):
        net(pictures)

    result = vars(args) | {"torch": torch.__version__}
    for name, function in (("fwd_bwd", forward_backward), ("fwd", lambda: forward(image)), ("fwd_one", lambda: forward(image[:1]))):
        wall, cpu = median_times(function, args.steps)
        result |= {f"{name}_s": round(wall, 3), f"{name}_cpu_s": round(cpu, 3)}
    result["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
