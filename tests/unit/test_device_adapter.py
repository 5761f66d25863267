"""The environment of a ModelArts job decides what is launched."""
import pytest

from faster_rcnn.src.model_utils.device_adapter import Launch, plan_launch

HOSTS = "job-worker-0.job,job-worker-1.job"
RANK_TABLE = {"MA_JOB_DIR": "/home/ma-user/modelarts/user-job-dir", "MA_NUM_HOSTS": "2", "MA_NUM_GPUS": "8",
              "VC_WORKER_HOSTS": HOSTS, "VC_TASK_INDEX": "1", "RANK_TABLE_FILE": "/user/config/jobstart_hccl.json",
              "RANK_ID": "11", "RANK_SIZE": "16", "ASCEND_DEVICE_ID": "3"}
BY_MSRUN = {"MA_NUM_HOSTS": "1", "MA_NUM_GPUS": "8", "MA_RUN_METHOD": "msrun", "MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "8",
            "RANK_ID": "5", "RANK_SIZE": "8", "DEVICE_ID": "5"}


def msrun(ranks, cards, master, index):
    return (f"--worker_num={ranks}", f"--local_worker_num={cards}", f"--master_addr={master}",
            f"--node_rank={index}", "--log_dir=/out/msrun_log", "--cluster_time_out=3600")


@pytest.mark.parametrize("environ, launch", [
    ({}, Launch()),
    ({"MA_NUM_HOSTS": "1", "MA_NUM_GPUS": "0"}, Launch()),      # a machine without cards
    ({"RANK_TABLE_FILE": "t.json", "RANK_ID": "0", "RANK_SIZE": "1", "ASCEND_DEVICE_ID": "0"},
     Launch(environment={"DEVICE_ID": "0"})),
    (RANK_TABLE, Launch(11, 16, {"DEVICE_ID": "3"})),
    (BY_MSRUN, Launch(5, 8)),
    ({**BY_MSRUN, "MS_ROLE": "MS_SCHED", "RANK_ID": "0"}, Launch(0, 8, scheduler=True)),
    # msrun takes precedence over a rank table
    ({**RANK_TABLE, "MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "16"}, Launch(11, 16)),
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "MA_NUM_GPUS": "2"},
     Launch(3, 4, {"RANK_ID": "3", "RANK_SIZE": "4", "DEVICE_ID": "1"})),
    ({"MA_NUM_HOSTS": "1", "MA_NUM_GPUS": "8", "VC_WORKER_HOSTS": "job-worker-0.job", "MA_CURRENT_IP": "172.16.0.5"},
     Launch(0, 8, msrun=msrun(8, 8, "127.0.0.1", 0))),
    ({"MA_NUM_HOSTS": "2", "MA_NUM_GPUS": "8", "VC_WORKER_HOSTS": HOSTS, "VC_TASK_INDEX": "1", "MA_CURRENT_IP": "172.16.0.6"},
     Launch(8, 16, msrun=msrun(16, 8, "job-worker-0.job", 1))),
    ({"MA_NUM_HOSTS": "2", "MA_NUM_GPUS": "8", "VC_WORKER_HOSTS": HOSTS, "VC_TASK_INDEX": "0", "MA_CURRENT_IP": "172.16.0.5"},
     Launch(0, 16, msrun=msrun(16, 8, "172.16.0.5", 0))),
    ({"MA_NUM_HOSTS": "2", "MA_NUM_GPUS": "0", "VC_WORKER_HOSTS": HOSTS, "VC_TASK_INDEX": "0"},
     Launch(0, 2, msrun=msrun(2, 1, "job-worker-0.job", 0)))])
def test_launch(environ, launch):
    before = dict(environ)
    assert plan_launch(environ, True, "/out/msrun_log") == launch
    assert environ == before


def test_without_distribute_one_card_is_used():
    assert plan_launch({"MA_NUM_HOSTS": "1", "MA_NUM_GPUS": "8"}, False, "/out/msrun_log") == Launch()


@pytest.mark.parametrize("environ, distribute, expected", [
    (RANK_TABLE, False, "distribute: False, but the job has 16 processes; set distribute=True, or use one card"),
    ({"MA_NUM_HOSTS": "2", "MA_NUM_GPUS": "1", "VC_WORKER_HOSTS": HOSTS}, False, "distribute: False, but the job has 2 processes"),
    ({"MA_NUM_HOSTS": "3", "MA_NUM_GPUS": "8", "VC_WORKER_HOSTS": HOSTS}, True,
     "VC_WORKER_HOSTS names 2 machines, but MA_NUM_HOSTS is 3"),
    ({"MA_NUM_HOSTS": "2", "MA_NUM_GPUS": "8", "VC_WORKER_HOSTS": HOSTS, "VC_TASK_INDEX": "2"}, True,
     "VC_TASK_INDEX is 2, but MA_NUM_HOSTS is 2"),
    ({"MA_NUM_GPUS": "eight"}, True, "the environment variable MA_NUM_GPUS: expected a number, got 'eight'"),
    ({"RANK_TABLE_FILE": "t.json", "RANK_SIZE": "8"}, True, "the environment variable RANK_ID: expected a number, got ''")])
def test_contradictions(message, environ, distribute, expected):
    assert message(plan_launch, environ, distribute, "log").startswith(expected)


def test_which_launches_act_for_the_whole_machine():
    assert [Launch(*args).whole_machine for args in ((0, 1), (5, 8), (8, 16, {}, ("--worker_num=16",)))] == [True, False, True]
