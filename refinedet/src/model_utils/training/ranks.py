# Same as faster_rcnn/src/model_utils/training/ranks.py
"""Communication between the processes that train together, one per device.

A collective operation waits for the other ranks for a bounded time: in MindSpore 2.10 half a minute on the CPU and half an hour on
Ascend. Long work of rank 0, conversion and scoring, therefore runs in a thread, while all ranks keep exchanging its status.
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

POLL_S = 1.0    # seconds between these exchanges
T = TypeVar("T")


@ops.constexpr
def device_count() -> int:
    """Return the number of devices that train together, this one included; see local_adapter.setup_device."""
    return ms.get_auto_parallel_context("device_num")


def shared_count(count: Tensor, added: float = 0.0) -> Tensor:
    """Return the divisor of a loss on this device: (max(count over all devices, 1) + added) / devices.

    Gradients are averaged over the devices. With this divisor, their average equals that of one batch with all images, however the
    counted anchors or boxes are distributed; with one device it is max(count, 1).
    """
    devices = device_count()
    if devices > 1:
        count = ops.AllReduce()(count)
    return ops.stop_gradient((ops.maximum(count, 1.0) + added) / devices)


def same_on_all_ranks(net: nn.Cell, rank: int, ranks: int) -> None:
    """Set every parameter to its value on rank 0, so that all ranks start from bitwise equal weights."""
    if ranks > 1:
        all_reduce = ops.AllReduce()
        for param in net.get_parameters():
            value = param.asnumpy() if rank == 0 else np.zeros(param.shape, ms.dtype_to_nptype(param.dtype))
            param.set_data(all_reduce(Tensor(value)))


def exchange(data: bytes, ranks: int) -> list[bytes]:
    """Return the `data` of every rank, in rank order. All ranks must call this."""
    if ranks == 1:
        return [data]
    gather = ops.AllGather()
    sizes = gather(Tensor([len(data)], ms.int32)).asnumpy().tolist()
    words = np.zeros(max(1, -(-max(sizes) // 4)), np.int32)
    words.view(np.uint8)[:len(data)] = np.frombuffer(data, np.uint8)
    rows = gather(Tensor(words)).asnumpy().reshape(ranks, -1)
    return [row.view(np.uint8)[:size].tobytes() for row, size in zip(rows, sizes)]


def wait_for_all(ranks: int) -> None:
    """Return once all ranks have called this."""
    exchange(b"", ranks)


def first_then_others(work: Callable[[], T], rank: int, ranks: int, what: str, timeout: float = 0) -> T:
    """Run work() on rank 0, then on the other ranks, which reuse what rank 0 has produced.

    Fails on all ranks at once if rank 0 fails or takes more than `timeout` seconds (0 = no limit).
    """
    if ranks == 1:
        return work()
    results = []
    from_first(lambda: results.append(work()), rank, ranks, what, timeout)
    return results[0] if rank == 0 else work()


def from_first(work: Callable[[], Any], rank: int, ranks: int, what: str, timeout: float = 0) -> Any:
    """Return the result of work() on rank 0, JSON-serialisable; no other rank runs it. Failures as in `first_then_others`."""
    if ranks == 1:
        return work()
    job = _Job(work, what, timeout) if rank == 0 else None
    status = b""
    while not status:
        status = exchange(job.outcome() if job else b"", ranks)[0]
    outcome = json.loads(status)
    if "error" not in outcome:
        return outcome["result"]
    if job and job.error:
        raise job.error
    error = InputError(f"{what}: rank 0 failed: {outcome['error']}")
    error.status = outcome["status"]
    raise error


class _Job:
    """work() in a daemon thread, which does not keep the process alive."""

    def __init__(self, work: Callable[[], Any], what: str, timeout: float):
        self.work, self.what, self.timeout = work, what, timeout
        self.result: Any = None
        self.error: BaseException | None = None
        self.done, self.start = threading.Event(), time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:      # the main thread raises it
            self.error = error
        self.done.set()

    def outcome(self) -> bytes:
        """Wait up to POLL_S; return b"" while work() is running, else JSON of its result or error."""
        if not self.done.wait(POLL_S):
            if not self.timeout or time.monotonic() - self.start < self.timeout:
                return b""
            self.error = InputError(f"{self.what}: not done after {self.timeout:g} s (data_timeout)")
        if self.error is None:
            try:
                return json.dumps({"result": self.result}).encode()
            except TypeError as error:
                self.error = error
        failure = {"error": str(self.error) or type(self.error).__name__, "status": getattr(self.error, "status", 2)}
        return json.dumps(failure).encode()
