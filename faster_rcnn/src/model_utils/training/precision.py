"""Mixed precision: the network in float16 where it pays, and the factor that keeps float16 gradients from vanishing."""
from collections.abc import Mapping
from typing import Any

import mindspore as ms
from mindspore import nn

from ..config import InputError

# Dynamic factor: where it begins unless the config says more, after how many good steps it doubles, where it ends.
DYNAMIC_START, DYNAMIC_WINDOW, DYNAMIC_LIMIT = 2.0 ** 16, 1000, 2.0 ** 24
# So many steps in a row that are not finite under a static factor are no overflow that passes.
STATIC_SKIPS = 20


def mixed_precision(net: nn.Cell, level: str, device: str) -> nn.Cell:
    """The network for amp_level {O0|O2|auto}; O2: convolutions and matrix products in float16, all else in float32."""
    if level == "auto":
        level = "O2" if device == "Ascend" else "O0"
    if level == "O0":
        return net
    if device == "CPU":
        raise InputError("amp_level: O2 needs Ascend or GPU; on the CPU take O0 or auto")
    # MindSpore's own "O2" casts what enters a cell, boxes too: float16 has whole pixels only from 1024 on.
    return ms.amp.auto_mixed_precision(net, "auto")


class LossScale:
    """The factor of the loss; a dynamic one halves when a step is not finite and doubles after a run of good ones.

    Under a static one such a step is left out too, STATIC_SKIPS times in a row at most. A factor of 1 is for float32, where
    nothing overflows that is sound: the first such step ends the run.
    """

    def __init__(self, value: float = 1.0, dynamic: bool = False):
        self.dynamic = dynamic
        self.value = DYNAMIC_START if dynamic and value <= 1 else float(value)
        self.good_steps = 0  # since the factor last changed
        self.skipped = 0     # steps left out in all
        self.in_a_row = 0    # of these, since the last good one

    def update(self, finite: bool) -> bool:
        """Take note of a step; False: it was not finite and to leave it out, or a smaller factor, will not help."""
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
        """What JSON can hold, for `load_state`."""
        return {"value": self.value, "dynamic": self.dynamic, "good_steps": self.good_steps, "skipped": self.skipped,
                "in_a_row": self.in_a_row}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on as `state` says; its factor counts where both are dynamic alone, so that another choice takes effect."""
        if state.get("dynamic", self.dynamic) == self.dynamic:      # older states lack it, and in_a_row
            self.good_steps = state["good_steps"]
            self.value = state["value"] if self.dynamic else self.value
        self.skipped, self.in_a_row = state["skipped"], state.get("in_a_row", 0)
