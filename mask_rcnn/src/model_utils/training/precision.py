# Same as faster_rcnn/src/model_utils/training/precision.py
"""Mixed precision: float16 where it pays, and loss scaling, which keeps float16 gradients from vanishing."""
from collections.abc import Mapping
from typing import Any

import mindspore as ms
from mindspore import nn

from ..config import InputError

# Dynamic loss scale: initial value unless the config asks for more, finite steps before it doubles, upper limit.
DYNAMIC_START, DYNAMIC_WINDOW, DYNAMIC_LIMIT = 2.0 ** 16, 1000, 2.0 ** 24
# This many consecutive non-finite steps under a static loss scale are not a passing overflow.
STATIC_SKIPS = 20


def mixed_precision(net: nn.Cell, level: str, device: str) -> nn.Cell:
    """Return the network for amp_level {O0|O2|auto}. O2: convolutions and matrix products in float16, the rest in float32."""
    if level == "auto":
        level = "O2" if device == "Ascend" else "O0"
    if level == "O0":
        return net
    if device == "CPU":
        raise InputError("amp_level: O2 needs Ascend or GPU; on the CPU use O0 or auto")
    # MindSpore's "O2" would also cast a cell's inputs, such as boxes: from 1024 on, float16 resolves whole pixels only.
    return ms.amp.auto_mixed_precision(net, "auto")


class LossScale:
    """The loss scale. A dynamic one halves after a non-finite step and doubles after DYNAMIC_WINDOW finite ones.

    With a static scale, non-finite steps are skipped too, fewer than STATIC_SKIPS in a row. With scale 1, for float32, nothing
    should overflow, so the first non-finite step ends the run.
    """

    def __init__(self, value: float = 1.0, dynamic: bool = False):
        self.dynamic = dynamic
        self.value = DYNAMIC_START if dynamic and value <= 1 else float(value)
        self.good_steps = 0  # finite steps since the scale last changed
        self.skipped = 0     # skipped steps in total
        self.in_a_row = 0    # skipped steps since the last finite one

    def update(self, finite: bool) -> bool:
        """Record a step. Return False if it is not finite and neither skipping it nor a smaller scale will help."""
        if finite:
            self.in_a_row = 0
            self.good_steps += 1
            if self.dynamic and self.good_steps == DYNAMIC_WINDOW:
                self.value, self.good_steps = min(self.value * 2, DYNAMIC_LIMIT), 0
            return True
        if self.value <= 1 or (not self.dynamic and self.in_a_row + 1 >= STATIC_SKIPS):
            return False
        if self.dynamic:
            self.value = max(self.value / 2, 1.0)
        self.good_steps = 0
        self.skipped += 1
        self.in_a_row += 1
        return True

    def state(self) -> dict[str, Any]:
        """Return a JSON-serialisable state for `load_state`."""
        return {"value": self.value, "dynamic": self.dynamic, "good_steps": self.good_steps, "skipped": self.skipped,
                "in_a_row": self.in_a_row}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state. The scale is restored only if both are dynamic, so that a changed configuration takes effect."""
        if state.get("dynamic", self.dynamic) == self.dynamic:      # "dynamic" and "in_a_row" are missing in older states
            self.good_steps = state["good_steps"]
            self.value = state["value"] if self.dynamic else self.value
        self.skipped, self.in_a_row = state["skipped"], state.get("in_a_row", 0)
