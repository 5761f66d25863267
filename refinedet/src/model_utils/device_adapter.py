# Same as faster_rcnn/src/model_utils/device_adapter.py
"""Environment of a ModelArts job: number of processes, index of this one, and who starts them.

ModelArts starts the boot file in one of four ways:

rank table  once per Ascend card, with RANK_TABLE_FILE, RANK_ID, RANK_SIZE and ASCEND_DEVICE_ID (MA_RUN_METHOD unset)
msrun       by msrun, which sets MS_ROLE, MS_WORKER_NUM, RANK_ID and DEVICE_ID (MA_RUN_METHOD=msrun)
mpirun      once per GPU, with OMPI_COMM_WORLD_RANK and related variables (the MindSpore-GPU engine)
once        for jobs with one card and for custom images: once per machine, with MA_NUM_HOSTS, MA_NUM_GPUS (cards per
            machine), VC_WORKER_HOSTS and VC_TASK_INDEX. With several cards, utils/launch then starts msrun.
"""
from collections.abc import Mapping
from dataclasses import dataclass, field

from .configuration.schema import InputError

# Difference in the time that machines may take to fetch their data, in seconds.
CLUSTER_TIMEOUT = "3600"


@dataclass(frozen=True)
class Launch:
    """How to run the command in this process of a job."""

    rank: int = 0                   # of this process, or of the first process that msrun starts
    ranks: int = 1                  # processes of the whole job
    environment: dict[str, str] = field(default_factory=dict)     # variables to set for the command
    msrun: tuple[str, ...] = ()               # options of utils/launch, if it must start msrun
    scheduler: bool = False         # this process is msrun's scheduler, which joins the group and computes nothing

    @property
    def whole_machine(self) -> bool:
        """Return whether this process and its children write all results of this machine."""
        return self.ranks == 1 or bool(self.msrun)


def plan_launch(environ: Mapping[str, str], distribute: bool, log_dir: str) -> Launch:
    """Determine from a job's environment how to run the command.

    Args:
        environ: the environment variables.
        distribute: the key of the configuration.
        log_dir: folder for the logs of msrun.

    Raises:
        InputError: if the environment and the configuration contradict each other.
    """
    launch = _started_already(environ)
    if launch is None:
        hosts, cards = (_count(environ, name) for name in ("MA_NUM_HOSTS", "MA_NUM_GPUS"))
        if hosts * cards == 1 or (hosts == 1 and not distribute):
            return Launch(environment=_device(environ))
        launch = _msrun(environ, hosts, cards, log_dir)
    if launch.ranks > 1 and not distribute:
        raise InputError(f"distribute: False, but the job has {launch.ranks} processes; set distribute=True, or use one card")
    return launch


def _started_already(environ: Mapping[str, str]) -> Launch | None:
    """Return the Launch of a process that a launcher has started, else None."""
    if environ.get("MS_ROLE"):
        ranks = _number(environ, "MS_WORKER_NUM")
        return Launch(_number(environ, "RANK_ID", "0"), ranks, scheduler=environ["MS_ROLE"] == "MS_SCHED")
    if environ.get("OMPI_COMM_WORLD_SIZE"):
        rank, ranks = (_number(environ, f"OMPI_COMM_WORLD_{name}") for name in ("RANK", "SIZE"))
        local = str(_number(environ, "OMPI_COMM_WORLD_LOCAL_RANK"))
        return Launch(rank, ranks, {"RANK_ID": str(rank), "RANK_SIZE": str(ranks), "DEVICE_ID": local})
    if environ.get("RANK_TABLE_FILE") and environ.get("RANK_SIZE"):
        rank, ranks = _number(environ, "RANK_ID"), _number(environ, "RANK_SIZE")
        return Launch(rank, ranks, _device(environ))
    return None


def _msrun(environ: Mapping[str, str], hosts: int, cards: int, log_dir: str) -> Launch:
    """Return the Launch with utils/launch; the machines differ in their rank only. The first of VC_WORKER_HOSTS is the master."""
    index = _number(environ, "VC_TASK_INDEX", "0") if hosts > 1 else 0
    names = [name for name in environ.get("VC_WORKER_HOSTS", "").split(",") if name]
    if hosts > 1 and len(names) != hosts:
        raise InputError(f"VC_WORKER_HOSTS names {len(names)} machines, but MA_NUM_HOSTS is {hosts}")
    if index >= hosts:
        raise InputError(f"VC_TASK_INDEX is {index}, but MA_NUM_HOSTS is {hosts}")
    # The master may be unable to resolve its own name; its address always works.
    own = environ.get("MA_CURRENT_IP") if index == 0 else None
    master = (own or names[0]) if hosts > 1 else "127.0.0.1"
    options = {"worker_num": hosts * cards, "local_worker_num": cards, "master_addr": master, "node_rank": index,
               "log_dir": log_dir, "cluster_time_out": CLUSTER_TIMEOUT}
    return Launch(index * cards, hosts * cards, msrun=tuple(f"--{name}={value}" for name, value in options.items()))


def _device(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the card under the name that setup_device reads."""
    card = environ.get("ASCEND_DEVICE_ID")
    return {"DEVICE_ID": card} if card else {}


def _count(environ: Mapping[str, str], name: str) -> int:
    """Return a number of machines or cards, at least 1: MA_NUM_GPUS is 0 on machines without cards."""
    return max(_number(environ, name, "1"), 1)


def _number(environ: Mapping[str, str], name: str, default: str = "") -> int:
    text = environ.get(name) or default
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"the environment variable {name}: expected a number, got {text!r}")
    return int(text)
