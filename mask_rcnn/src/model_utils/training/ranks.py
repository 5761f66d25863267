# Same as faster_rcnn/src/model_utils/training/ranks.py
"""What the processes that train together tell each other; there is one per device, and rank 0 is the first.

What takes one of them long, conversion and scoring, it does in a thread, while all go on exchanging that it is not done: a
collective operation waits a bounded time for the others, in MindSpore 2.10 half a minute on the CPU and half an hour on Ascend.
"""
import json
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ..config import InputError

POLL_S = 1.0    # between two of these exchanges
T = TypeVar("T")


@ops.constexpr
def device_count() -> int:
    """Devices that this process trains together with, itself counted; see local_adapter.setup_device."""
    return ms.get_auto_parallel_context("device_num")


def shared_count(count: Tensor, added: float = 0.0) -> Tensor:
    """What a loss of this device divides by: (max(count over all devices, 1) + added) / devices.

    The gradients of the devices are averaged. With this divisor their average is that of one batch with all their pictures,
    however the counted anchors or boxes are spread over the devices; with one device it is max(count, 1).
    """
    devices = device_count()
    if devices > 1:
        count = ops.AllReduce()(count)
    return ops.stop_gradient((ops.maximum(count, 1.0) + added) / devices)


def same_on_all_ranks(net: nn.Cell, rank: int, ranks: int) -> None:
    """Give every parameter the value that it has on rank 0, so that all start from the same weights, to the bit."""
    if ranks > 1:
        all_reduce = ops.AllReduce()
        for param in net.get_parameters():
            value = param.asnumpy() if rank == 0 else np.zeros(param.shape, ms.dtype_to_nptype(param.dtype))
            param.set_data(all_reduce(Tensor(value)))


def exchange(data: bytes, ranks: int) -> list[bytes]:
    """The `data` of every rank, in their order; all call it."""
    if ranks == 1:
        return [data]
    gather = ops.AllGather()
    sizes = gather(Tensor([len(data)], ms.int32)).asnumpy().tolist()
    words = np.zeros(max(1, -(-max(sizes) // 4)), np.int32)
    words.view(np.uint8)[:len(data)] = np.frombuffer(data, np.uint8)
    rows = gather(Tensor(words)).asnumpy().reshape(ranks, -1)
    return [row.view(np.uint8)[:size].tobytes() for row, size in zip(rows, sizes)]


def wait_for_all(ranks: int) -> None:
    """Return when all have called it."""
    exchange(b"", ranks)


def first_then_others(work: Callable[[], T], rank: int, ranks: int, what: str, timeout: float = 0) -> T:
    """work() on rank 0, and once it is done there on the others, which find done what need be done once alone.

    Fails everywhere at once where rank 0 fails, or is not done after `timeout` seconds (0 = however long it takes).
    """
    if ranks == 1:
        return work()
    results = []
    from_first(lambda: results.append(work()), rank, ranks, what, timeout)
    return results[0] if rank == 0 else work()


def from_first(work: Callable[[], Any], rank: int, ranks: int, what: str, timeout: float = 0) -> Any:
    """What work() gives on rank 0, which alone calls it: something that JSON holds. Failures: see `first_then_others`."""
    if ranks == 1:
        return work()
    job = _Job(work, what, timeout) if rank == 0 else None
    told = b""
    while not told:
        told = exchange(job.outcome() if job else b"", ranks)[0]
    outcome = json.loads(told)
    if "error" not in outcome:
        return outcome["result"]
    if job and job.error:
        raise job.error
    error = InputError(f"{what}: rank 0 failed: {outcome['error']}")
    error.status = outcome["status"]
    raise error


class _Job:
    """work() in a thread; a thread that nobody waits for, for the process may end before it."""

    def __init__(self, work: Callable[[], Any], what: str, timeout: float):
        self.work, self.what, self.timeout = work, what, timeout
        self.result: Any = None
        self.error: BaseException | None = None
        self.done, self.start = threading.Event(), time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:      # whatever it is, the main thread raises it
            self.error = error
        self.done.set()

    def outcome(self) -> bytes:
        """After POLL_S at most: nothing while it is at work, else JSON of the result or the error."""
        if not self.done.wait(POLL_S):
            if not self.timeout or time.monotonic() - self.start < self.timeout:
                return b""
            self.error = InputError(f"{self.what}: not done after {self.timeout:g} s (data_timeout)")
        if self.error is None:
            try:
                return json.dumps({"result": self.result}).encode()
            except TypeError as error:
                self.error = error
        told = {"error": str(self.error) or type(self.error).__name__, "status": getattr(self.error, "status", 2)}
        return json.dumps(told).encode()
