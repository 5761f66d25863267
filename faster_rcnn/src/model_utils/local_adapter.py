"""Device setup: environment, device, threads, ranks.

MindSpore is only imported inside functions, because `prepare_environment` must run before its first import.
"""
import contextlib
import glob
import logging
import os
import platform
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

from ..model import check_device
from .configuration.schema import InputError
from .configuration.values import Config

# One of these exists wherever MindSpore may find an Ascend or a GPU, including the Windows Subsystem for Linux.
DEVICE_FILES = ("/dev/davinci*", "/dev/hisi_hdc", "/dev/nvidia*", "/dev/dxg")
log = logging.getLogger(__name__)


class Ranks(NamedTuple):
    """Index of this process, and number of processes that train or evaluate together."""

    rank: int
    ranks: int


def prepare_environment(threads: int = 0) -> None:
    """Set the environment variables that MindSpore reads on import, unless the user has set them; switch its compile cache off.

    threads: number of OpenMP threads; 0 = OpenMP's default.
    """
    if platform.machine().lower() in ("x86_64", "amd64") and "ONEDNN_MAX_CPU_ISA" not in os.environ:
        if "mindspore" in sys.modules:
            log.warning("MindSpore was imported before its environment was set up, so its convolutions may be 50 times slower; "
                        "import the detector first, or set ONEDNN_MAX_CPU_ISA=AVX2 in the environment")
        # MindSpore passes plain NCHW to oneDNN, which with AVX-512 uses its reference loop for 3x3 convolutions, 50 to 80
        # times slower than the AVX2 kernel (MindSpore 2.10.0).
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    if os.environ.get("MS_COMPILER_CACHE_ENABLE") == "1":
        # A graph read from the cache has zeros for weights, forward and backward (MindSpore 2.10.0).
        os.environ["MS_COMPILER_CACHE_ENABLE"] = "0"
        log.warning("MS_COMPILER_CACHE_ENABLE=1 is ignored: networks that MindSpore 2.10.0 reads from its compile cache compute "
                    "wrong losses and gradients")
    # Seconds that a collective operation on the CPU waits for other ranks; a step may take longer than MindSpore's 30.
    os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", "600")
    os.environ.setdefault("GLOG_v", "3")  # errors only: MindSpore warns about plugins of devices that do not exist
    if threads > 0:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def setup_device(config: Config, training: bool = False) -> str:
    """Set graph mode, device, threads and seed, and join the process group if `distribute` is set.

    With MS_JIT=0 in the environment (MindSpore's own variable), nothing is compiled, so that a debugger can stop at any line of a
    network.

    Returns:
        The device: "Ascend", "GPU" or "CPU".

    Raises:
        InputError: if the device is not available or lacks what the configuration asks for, or if `distribute` and the launcher's
            environment contradict each other.
    """
    import mindspore as ms

    target = _choose_target(config.device_target)
    fault = check_device(config, target, training)
    if fault:
        raise InputError(": ".join(fault))
    eager = os.environ.get("MS_JIT") == "0"
    ms.set_context(mode=ms.PYNATIVE_MODE if eager else ms.GRAPH_MODE)
    if not config.distribute and os.environ.get("MS_ROLE"):
        raise InputError("distribute: False, but msrun started this process, so each process would do all the work; set "
                         "--distribute=True")
    device_id = os.environ.get("DEVICE_ID") if config.distribute else None  # set by the launcher, one per process
    own = None if config.distribute else config.device_id if target != "CPU" else 0
    try:
        ms.set_device(target, int(device_id) if device_id else own)
    except RuntimeError as error:       # the program has already used another device
        raise InputError(f"device_target: {target}: MindSpore already uses a device in this process ({str(error).splitlines()[0]})"
                         ) from error
    if target == "CPU":
        with contextlib.suppress(RuntimeError):     # can be set once per process
            ms.device_context.cpu.op_tuning.threads_num(cpu_threads(config))
        if eager:
            ms.runtime.launch_blocking()    # run one operator at a time, since their threads wait for each other by spinning
    ms.set_seed(config.seed)
    if config.distribute:
        _join_group(ms)
    return target


def cpu_without_mindspore(config: Config) -> bool:
    """Return whether setup_device would choose the CPU, if that is certain without importing MindSpore, which takes seconds."""
    if config.distribute or os.environ.get("MS_ROLE"):
        return False
    return config.device_target == "CPU" or (config.device_target == "auto" and not any(map(glob.glob, DEVICE_FILES)))


def cpu_threads(config: Config) -> int:
    """Return the number of threads for computing on the CPU."""
    own = max(1, usable_cores() // _local_processes()) if config.distribute else usable_cores()
    return config.runtime_num_threads or own


@contextlib.contextmanager
def pynative() -> Iterator[None]:
    """Run operators one by one, without compiling, within the block."""
    import mindspore as ms

    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _local_processes() -> int:
    """Return the number of processes of the group on this machine, which share its cores."""
    return int(os.environ.get("LOCAL_WORKER_NUM") or get_device_num())      # LOCAL_WORKER_NUM is set by utils/launch


def get_ranks(config: Config) -> Ranks:
    """Return the index of this process and the number of processes."""
    return Ranks(get_rank_id(), get_device_num()) if config.distribute else Ranks(0, 1)


def get_rank_id() -> int:
    """Return the index of this process in its group."""
    return int(os.environ.get("RANK_ID") or 0)


def get_device_num() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("RANK_SIZE") or os.environ.get("MS_WORKER_NUM") or 1)


def _choose_target(wanted: str) -> str:
    import mindspore as ms

    devices = {"Ascend": ms.device_context.ascend, "GPU": ms.device_context.gpu, "CPU": ms.device_context.cpu}
    if wanted == "auto":
        return next(name for name, device in devices.items() if device.is_available())
    if not devices[wanted].is_available():
        there = ", ".join(name for name, device in devices.items() if device.is_available())
        raise InputError(f"device_target: MindSpore finds no {wanted}; available: {there}")
    return wanted


def _join_group(ms: ModuleType) -> None:
    if not (os.environ.get("RANK_SIZE") or os.environ.get("MS_WORKER_NUM") or os.environ.get("RANK_TABLE_FILE")):
        raise InputError("distribute: True, but RANK_SIZE and MS_WORKER_NUM are not set; start with msrun")
    ms.communication.init()
    # With several hosts, the launcher may leave the numbering of ranks to the group.
    os.environ["RANK_ID"] = str(ms.communication.get_rank())
    os.environ["RANK_SIZE"] = str(ms.communication.get_group_size())
    ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True,
                                 device_num=ms.communication.get_group_size())
