"""Checkpoints of a run and resuming from them: the epochs of training/loop.py with a toy network."""
import resource

import mindspore as ms
import numpy as np
import pytest

from faster_rcnn.src.model_utils.config import InputError, load_config
from faster_rcnn.src.model_utils.training import checkpoint
from faster_rcnn.src.model_utils.training.checkpoint import (
    CheckpointFolder,
    check_same_run,
    find_state,
    read_state,
    set_aside,
)
from faster_rcnn.src.model_utils.training.step import NotFiniteError, TrainStep
from faster_rcnn.src.model_utils.weights.loading import load_checkpoint_into
from refinedet.src.model_utils.config import load_config as load_refinedet_config
from tests.toy_network import LOSS_NAMES, ToyDetector, toy_batch
from tests.toy_run import ToyRun, Wish, equal, lines, metrics, names

pytestmark = pytest.mark.usefixtures("eager")

# ---- resuming

@pytest.mark.parametrize("stops, options", [
    ((5,), {}), ((3, 6), {"accumulate_steps": 2}), ((1, 4, 7), {"loss_scale": 64.0, "dynamic_loss_scale": True, "ema_decay": 0.9})],
    ids=["plain", "accumulation", "averages and dynamic scale"])
def test_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path, stops, options):
    whole = ToyRun(tmp_path / "whole", **options).run()
    parts, losses = tmp_path / "the parts", {}
    for start, stop in zip((0, *stops), stops):
        part = ToyRun(parts, **options).resume().stopped(Wish(step=stop))
        assert list(part.losses) == list(range(start + 1, stop + 1))
        losses.update(part.losses)
    last = ToyRun(parts, **options).resume().run()
    assert {**losses, **last.losses} == whole.losses
    assert equal(last.weights(), whole.weights())
    assert last.train_step.loss_scale.state() == whole.train_step.loss_scale.state()
    assert lines(parts) == lines(tmp_path / "whole")     # the log's lines are means over several steps


def test_stop_in_an_evaluation_repeats_only_that(tmp_path):
    whole = ToyRun(tmp_path / "whole", aps=(0.1, 0.3, 0.2)).run()
    first = ToyRun(tmp_path / "parts", aps=(0.1, 0.3)).stopped(Wish(evaluation=2))
    assert (first.loop.step, first.loop.evaluated, first.loop.best_ap) == (8, 4, 0.1)
    second = ToyRun(tmp_path / "parts", aps=(0.3, 0.2)).resume().run()
    assert list(second.losses) == [9, 10, 11, 12]
    assert [(row["step"], row["AP"]) for row in metrics(tmp_path / "parts", "eval")] == [(4, 0.1), (8, 0.3), (12, 0.2)]
    assert (second.loop.best_ap, second.loop.best_epoch) == (whole.loop.best_ap, whole.loop.best_epoch) == (0.3, 2)
    assert equal(second.weights(), whole.weights())


def test_resume_of_a_finished_run_does_nothing(tmp_path):
    ToyRun(tmp_path, aps=(0.1, 0.2, 0.3)).run()
    before = {name: (tmp_path / "checkpoint" / name).stat().st_mtime_ns for name in names(tmp_path)}
    again = ToyRun(tmp_path, aps=(9,)).resume().run()
    assert not again.losses
    assert again.evaluations == 0
    assert {name: (tmp_path / "checkpoint" / name).stat().st_mtime_ns for name in names(tmp_path)} == before


def test_a_longer_run_resumes_from_a_shorter(tmp_path):
    whole = ToyRun(tmp_path / "whole").run()
    ToyRun(tmp_path / "parts", max_steps=5).run()
    assert ToyRun(tmp_path / "parts").resume().run().losses == {step: whole.losses[step] for step in range(6, 13)}


def test_where_the_state_is_found(tmp_path):
    assert find_state("", tmp_path) is None
    assert find_state("auto", tmp_path) is None
    with pytest.raises(InputError, match="no such file or folder"):
        find_state(str(tmp_path / "nowhere"), tmp_path)
    with pytest.raises(InputError, match=r"no state\.ckpt in this folder"):
        find_state(str(tmp_path), tmp_path)
    folder = tmp_path / "a b" / "checkpoint"
    folder.mkdir(parents=True)
    state = folder / "state.ckpt"
    state.write_bytes(b"")
    assert find_state("auto", tmp_path / "a b") == state
    for where in (state, folder, tmp_path / "a b"):
        assert find_state(str(where), tmp_path) == state


def test_wrong_or_damaged_state(tmp_path):
    run = ToyRun(tmp_path, max_steps=1).run()
    folder = tmp_path / "checkpoint"
    with pytest.raises(InputError, match=r"last\.ckpt: holds weights, not the state of a run; give .*state\.ckpt"):
        read_state(folder / "last.ckpt")
    state = folder / "state.ckpt"
    with pytest.raises(InputError, match="the state of a run, for --resume"):
        load_checkpoint_into(run.net, state)
    whole = state.read_bytes()
    for damaged in (whole[:len(whole) // 2], whole[:-40], whole[:100] + b"\0" + whole[101:], b""):
        state.write_bytes(damaged)
        with pytest.raises(InputError, match="resume: .*state.ckpt: "):
            read_state(state)


# ---- another configuration

def test_keys_that_must_not_change(tmp_path, caplog):
    run = ToyRun(tmp_path, max_steps=1).run()
    path = tmp_path / "checkpoint" / "state.ckpt"
    values, facts = read_state(path)[1], {"pictures": 8, "devices": 1}
    check_same_run(values, run.config, facts, path)

    def changed(**overrides):
        return load_config(overrides={**run.config.to_dict(), **overrides})

    with pytest.raises(InputError, match="resume: batch_size was 2 and is now 4"):
        check_same_run(values, changed(batch_size=4), facts, path)
    with pytest.raises(InputError, match="resume: repeat_threshold was 0.0 and is now 0.5"):
        check_same_run(values, changed(repeat_threshold=0.5), facts, path)
    with pytest.raises(InputError, match="resume: num_classes was 81 and is now 3"):
        check_same_run(values, changed(num_classes=3, coco_classes=["background", "a", "b"]), facts, path)
    with pytest.raises(InputError, match="resume: pictures was 8 and is now 9"):
        check_same_run(values, run.config, {**facts, "pictures": 9}, path)
    assert not caplog.records
    check_same_run(values, changed(seed=5, max_steps=9, epoch_size=30, num_parallel_workers=1), facts, path)
    assert [record.getMessage().split(":")[1] for record in caplog.records] == [
        " seed was 1 and is now 5", " epoch_size was 3 and is now 30"]


@pytest.mark.parametrize(("factor", "now", "warnings"), [
    (4.0, {"expand_ratio": 1.0, "expand_factor": 4.0}, []), (1.0, {"expand_ratio": 0.0}, []),
    (1.0, {"expand_ratio": 1.0},
     ["resume: expand_ratio was 0.0 and is now 1.0: the rest of the run will differ from the original"])])
def test_state_from_before_expand_ratio_was_a_chance(tmp_path, caplog, factor, now, warnings):
    before = {**load_config().to_dict(), "expand_ratio": factor}
    del before["expand_factor"]
    check_same_run({"config": before, "facts": {}}, load_config(overrides=now), {}, tmp_path)
    assert [record.getMessage() for record in caplog.records] == warnings


def test_what_a_longer_run_changes(tmp_path, caplog):
    """If only max_steps sets the length, the learning rate falls to 0 there."""
    options = {"epoch_size": 0, "lr_schedule": "cosine"}
    run = ToyRun(tmp_path, max_steps=1, **options).run()
    path = tmp_path / "checkpoint" / "state.ckpt"
    longer = load_config(overrides={**run.config.to_dict(), "max_steps": 5})
    check_same_run(read_state(path)[1], longer, {"pictures": 8, "devices": 1}, path)
    assert [record.getMessage() for record in caplog.records] == [
        "resume: max_steps was 1 and is now 5: the rest of the run will differ from the original"]


@pytest.mark.parametrize("frozen", ["backbone.weight", ""])
def test_missing_entries_of_a_state_start_from_scratch(tmp_path, caplog, frozen):
    """Missing are averages, and the momentum of a frozen weight."""
    def build(frozen="", **options):
        net = ToyDetector()
        for param in net.get_parameters():
            param.requires_grad = param.requires_grad and param.name != frozen
        return TrainStep(net, LOSS_NAMES, momentum=0.9, weight_decay=0.01, **options)

    step, batch = build(frozen=frozen), toy_batch()
    step(batch, 0.1)
    other = build(ema_decay=0.9)
    other.load_state(*step.state(), "the state")
    assert "the state has no momentum or average of some weights" in caplog.text
    before = {param.name: param.asnumpy().copy() for param in step.net.get_parameters()}
    assert equal({name: param.asnumpy() for name, param in other.weights().items()}, before)
    momentum = dict(zip((param.name for param in other.params), other.momenta))["backbone.weight"].asnumpy()
    assert momentum.any() != bool(frozen)
    other(batch, 0.1)
    assert not equal({param.name: param.asnumpy() for param in other.net.get_parameters()}, before)


def test_keys_that_are_named_exist():
    """At least one model has each key: all models share the file."""
    named = {*checkpoint.FREE_KEYS, *checkpoint.FIXED_KEYS}
    assert named <= set(load_config()) | set(load_refinedet_config())
    assert not checkpoint.FREE_KEYS & set(checkpoint.FIXED_KEYS)


def test_state_of_another_network_is_refused(tmp_path):
    ToyRun(tmp_path, max_steps=1).run()
    path = tmp_path / "checkpoint" / "state.ckpt"
    other = TrainStep(ToyDetector(width=6), LOSS_NAMES, momentum=0.9, weight_decay=0.0)
    with pytest.raises(InputError, match=r"network\.backbone\.weight is \(5, 3\) in .*, the config asks for \(6, 3\)"):
        other.load_state(*read_state(path), path)


# ---- files

def test_stop_before_the_first_checkpoint_leaves_weights(tmp_path):
    run = ToyRun(tmp_path, ema_decay=0.5).stopped(Wish(step=2))
    assert names(tmp_path) == ["last.ckpt", "state.ckpt"]
    left = {name: value.asnumpy() for name, value in ms.load_checkpoint(str(tmp_path / "checkpoint" / "last.ckpt")).items()}
    assert equal(left, {name: value.asnumpy() for name, value in run.train_step.weights().items()})


def test_stop_after_a_checkpoint_renews_the_last_weights(tmp_path):
    ToyRun(tmp_path).stopped(Wish(step=6))
    last, numbered = (ms.load_checkpoint(str(tmp_path / "checkpoint" / name)) for name in ("last.ckpt", "toy-1_4.ckpt"))
    assert last.keys() == numbered.keys()
    assert not all(np.array_equal(last[name].asnumpy(), numbered[name].asnumpy()) for name in last)


def test_files_of_a_run(tmp_path):
    run = ToyRun(tmp_path, aps=(0.2, 0.3, 0.3), keep_checkpoint_max=2).run()
    assert names(tmp_path) == ["best.ckpt", "last.ckpt", "state.ckpt", "state_before.ckpt", "toy-2_4.ckpt", "toy-3_4.ckpt"]
    assert (run.loop.best_ap, run.loop.best_epoch) == (0.3, 3)      # the later of equals
    final = {param.name: param.asnumpy() for param in run.net.get_parameters()}
    for name in ("last.ckpt", "best.ckpt", "toy-3_4.ckpt"):
        path, net = tmp_path / "checkpoint" / name, ToyDetector()
        load_checkpoint_into(net, path)
        assert equal({param.name: param.asnumpy() for param in net.get_parameters()}, final)
        assert path.stat().st_mode & 0o644 == 0o644


def test_best_is_kept_when_the_run_gets_worse(tmp_path):
    ToyRun(tmp_path, aps=(0.2, 0.5, 0.3)).run()
    best, second = ToyDetector(), ToyDetector()
    load_checkpoint_into(best, tmp_path / "checkpoint" / "best.ckpt")
    load_checkpoint_into(second, tmp_path / "checkpoint" / "toy-2_4.ckpt")
    assert np.array_equal(best.backbone.weight.asnumpy(), second.backbone.weight.asnumpy())


def test_with_masks_their_ap_decides_which_is_best(tmp_path, capsys):
    run = ToyRun(tmp_path, aps=((0.2, 0.1), (0.3, 0.5), (0.9, 0.4))).run()
    assert (run.loop.best_ap, run.loop.best_epoch) == (0.5, 2)
    assert [(row["AP"], row["segm"]["AP"]) for row in metrics(tmp_path, "eval")] == [(0.2, 0.1), (0.3, 0.5), (0.9, 0.4)]
    said = [line for line in capsys.readouterr().out.splitlines() if " AP: " in line]
    assert said[2].startswith("epoch: 3 AP: 0.9000, AP50: 0.5000, segm AP: 0.4000, segm AP50: 0.5000 on 2 images in ")
    assert said[2].endswith("; best: 0.5000")


def test_checkpoints_hold_the_averaged_weights(tmp_path):
    run, net = ToyRun(tmp_path, max_steps=4, ema_decay=0.9).run(), ToyDetector()
    load_checkpoint_into(net, tmp_path / "checkpoint" / "last.ckpt")
    weight = net.backbone.weight.asnumpy()
    assert np.array_equal(weight, run.weights()["ema.backbone.weight"])
    assert not np.array_equal(weight, run.weights()["network.backbone.weight"])


def test_intervals(tmp_path):
    run = ToyRun(tmp_path, aps=(0.1, 0.2, 0.3), epoch_size=5, save_checkpoint_epochs=2, save_checkpoint_steps=7,
                 keep_checkpoint_max=9, eval_start_epoch=2, eval_interval=2, max_steps=18).run()
    # Saved at steps 7 and 14, epochs 2 and 4, and the end, step 18; evaluated at epochs 2 and 4 and the end.
    saved = [name for name in names(tmp_path) if name.startswith("toy")]
    assert saved == ["toy-2_3.ckpt", "toy-2_4.ckpt", "toy-4_2.ckpt", "toy-4_4.ckpt", "toy-5_2.ckpt"]
    assert run.evaluations == 3


def test_interval_of_steps_that_ends_an_epoch(tmp_path):
    ToyRun(tmp_path, aps=(0.1,), epoch_size=5, save_checkpoint_epochs=9, save_checkpoint_steps=8, eval_start_epoch=5).run()
    assert [name for name in names(tmp_path) if name.startswith("toy")] == ["toy-2_4.ckpt", "toy-4_4.ckpt", "toy-5_4.ckpt"]


def test_nothing_is_written_without_save_checkpoint(tmp_path):
    ToyRun(tmp_path, aps=(0.1, 0.2, 0.3), save_checkpoint=False).run()
    assert names(tmp_path) == []


def test_full_disk_leaves_what_was_there(tmp_path):
    run = ToyRun(tmp_path, max_steps=4).run()
    before = {name: (tmp_path / "checkpoint" / name).read_bytes() for name in names(tmp_path)}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limit[1]))      # no file may exceed 300 bytes
    try:
        for save in (lambda: run.folder.save(run.train_step, 1, 4), lambda: run.folder.save_best(run.train_step),
                     lambda: run.folder.save_state(run.train_step, run.loop.state())):
            with pytest.raises(InputError, match=r"\.ckpt: cannot be written: .*; the previous file is intact"):
                save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert {name: (tmp_path / "checkpoint" / name).read_bytes() for name in names(tmp_path)} == before


def test_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    run = ToyRun(tmp_path, max_steps=4).run()
    before = {name: (tmp_path / "checkpoint" / name).read_bytes() for name in names(tmp_path)}

    def interrupted(items, name, **_):
        with open(name, "wb") as file:
            file.write(b"half a check")
        raise KeyboardInterrupt

    monkeypatch.setattr(ms, "save_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.folder.save_state(run.train_step, run.loop.state())
    assert {name: (tmp_path / "checkpoint" / name).read_bytes() for name in names(tmp_path)} == before


def test_leftovers_of_a_killed_run_are_deleted(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("state.123.partial.ckpt", "last.123.partial.tmp", "mine.ckpt"):
        (folder / name).write_bytes(b"x")
    CheckpointFolder(tmp_path, "toy", 5)
    assert names(tmp_path) == ["mine.ckpt"]


def test_unrelated_files_are_not_pruned(tmp_path):
    kept = ["other-1_4.ckpt", "toy-1_4.ckpt.bak", "toy-x_1.ckpt"]
    (tmp_path / "checkpoint").mkdir()
    for name in kept:
        (tmp_path / "checkpoint" / name).write_bytes(b"x")
    ToyRun(tmp_path, keep_checkpoint_max=1).run()
    assert names(tmp_path) == sorted([*kept, "last.ckpt", "state.ckpt", "state_before.ckpt", "toy-3_4.ckpt"])


def test_ten_comes_after_nine(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    for name in ("toy-9_4.ckpt", "toy-10_4.ckpt", "toy-10_10.ckpt", "toy-2_4.ckpt"):
        (tmp_path / "checkpoint" / name).write_bytes(b"x")
    found = [path.name for path in CheckpointFolder(tmp_path, "toy", 5).numbered()]
    assert found == ["toy-2_4.ckpt", "toy-9_4.ckpt", "toy-10_4.ckpt", "toy-10_10.ckpt"]


def test_earlier_run_is_set_aside(tmp_path):
    assert set_aside(tmp_path) is None
    ToyRun(tmp_path, max_steps=1).run()
    (tmp_path / "mindrecord").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert set_aside(tmp_path) == tmp_path / "earlier" / "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier", "mindrecord", "notes.txt"]
    moved = {path.name for path in (tmp_path / "earlier" / "1").iterdir()}
    assert {"checkpoint", "loss_0.log", "metrics.jsonl"} <= moved
    ToyRun(tmp_path, max_steps=1).run()
    assert set_aside(tmp_path) == tmp_path / "earlier" / "2"


# ---- failing runs

def test_not_finite_names_terms_and_images(tmp_path):
    run = ToyRun(tmp_path, poison=6)
    with pytest.raises(NotFiniteError) as caught:
        run.run()
    text = str(caught.value)
    assert text.startswith("step 7 (epoch 2, batch 3) is not finite: rpn_cls_loss: nan, rpn_reg_loss: nan")
    assert text.endswith("grad_norm: nan; image ids of the batch: 106, 206")
    assert find_state("auto", tmp_path)     # from the end of epoch 1


def test_skipped_steps_are_counted(tmp_path):
    ToyRun(tmp_path, poison=1, log_interval=1, max_steps=3, dynamic_loss_scale=True, loss_scale=8.0).run()
    rows = metrics(tmp_path, "train")
    assert [(row["skipped_steps"], row["loss_scale"]) for row in rows] == [(0, 8.0), (1, 4.0), (1, 4.0)]
    assert [row["total_loss"] is None for row in rows] == [False, True, False]
    assert "total_loss: nan" in lines(tmp_path)[1]
