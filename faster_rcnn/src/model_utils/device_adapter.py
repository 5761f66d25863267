"""The environment of a ModelArts job: how many processes it has, which of them this is, who has started them.

ModelArts starts the boot file in one of four ways, or leaves the starting to it:

rank table  once per Ascend card, with RANK_TABLE_FILE, RANK_ID, RANK_SIZE and ASCEND_DEVICE_ID (MA_RUN_METHOD unset)
msrun       by msrun, which sets MS_ROLE, MS_WORKER_NUM, RANK_ID and DEVICE_ID (MA_RUN_METHOD=msrun)
mpirun      once per GPU, with OMPI_COMM_WORLD_RANK and its family (the MindSpore-GPU engine)
once        in a job of one card, or in an image of one's own: once per machine, with MA_NUM_HOSTS, MA_NUM_GPUS (cards
            of a machine), VC_WORKER_HOSTS and VC_TASK_INDEX. With several cards utils/launch then starts msrun.
"""
from collections.abc import Mapping
from dataclasses import dataclass, field

from .configuration.schema import InputError

# Machines may differ by this much in fetching their data, seconds.
CLUSTER_TIMEOUT = "3600"


@dataclass(frozen=True)
class Launch:
    """What is to be started for this process of a job."""

    rank: int = 0                   # of this process, or of the first that msrun starts
    ranks: int = 1                  # of the whole job
    environment: dict[str, str] = field(default_factory=dict)     # to set for the command
    msrun: tuple[str, ...] = ()               # options of utils/launch, where it is to start msrun here
    scheduler: bool = False         # this is msrun's scheduler, which joins the group and computes nothing

    @property
    def whole_machine(self) -> bool:
        """What is started here writes all that this machine writes."""
        return self.ranks == 1 or bool(self.msrun)


def plan_launch(environ: Mapping[str, str], distribute: bool, log_dir: str) -> Launch:
    """From the environment of a job to what is to be started; InputError where the two contradict each other.

    distribute: of the configuration; log_dir: where msrun is to write its logs.
    """
    launch = _started_already(environ)
    if launch is None:
        hosts, cards = (_count(environ, name) for name in ("MA_NUM_HOSTS", "MA_NUM_GPUS"))
        if hosts * cards == 1 or (hosts == 1 and not distribute):
            return Launch(environment=_device(environ))
        launch = _msrun(environ, hosts, cards, log_dir)
    if launch.ranks > 1 and not distribute:
        raise InputError(f"distribute: False, but the job has {launch.ranks} processes: set distribute=True, or give it one card")
    return launch


def _started_already(environ: Mapping[str, str]) -> Launch | None:
    """The launch of a process that a launcher has started, else None."""
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
    """utils/launch on this machine, the same on each: the first of VC_WORKER_HOSTS is the master."""
    index = _number(environ, "VC_TASK_INDEX", "0") if hosts > 1 else 0
    names = [name for name in environ.get("VC_WORKER_HOSTS", "").split(",") if name]
    if hosts > 1 and len(names) != hosts:
        raise InputError(f"VC_WORKER_HOSTS names {len(names)} machines, but MA_NUM_HOSTS is {hosts}")
    if index >= hosts:
        raise InputError(f"VC_TASK_INDEX is {index}, but MA_NUM_HOSTS is {hosts}")
    # The name of the master may not lead back to itself; its address does.
    own = environ.get("MA_CURRENT_IP") if index == 0 else None
    master = (own or names[0]) if hosts > 1 else "127.0.0.1"
    options = {"worker_num": hosts * cards, "local_worker_num": cards, "master_addr": master, "node_rank": index,
               "log_dir": log_dir, "cluster_time_out": CLUSTER_TIMEOUT}
    return Launch(index * cards, hosts * cards, msrun=tuple(f"--{name}={value}" for name, value in options.items()))


def _device(environ: Mapping[str, str]) -> dict[str, str]:
    """The card, by the name that setup_device reads."""
    card = environ.get("ASCEND_DEVICE_ID")
    return {"DEVICE_ID": card} if card else {}


def _count(environ: Mapping[str, str], name: str) -> int:
    """A number of machines or cards, at least 1: MA_NUM_GPUS is 0 on machines without cards."""
    return max(_number(environ, name, "1"), 1)


def _number(environ: Mapping[str, str], name: str, default: str = "") -> int:
    text = environ.get(name) or default
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"the environment variable {name}: expected a number, got {text!r}")
    return int(text)
