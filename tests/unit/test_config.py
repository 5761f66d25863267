"""Configuration: shipped defaults, layers and their precedence, the frozen object, help, and saving and loading."""
import copy
import pickle
import sys
from pathlib import Path

import pytest
import yaml

from faster_rcnn.src.FasterRcnn.key_rules import ALIASES, RETIRED
from faster_rcnn.src.model_utils import config as config_module
from faster_rcnn.src.model_utils.config import (
    Config,
    InputError,
    load_config,
    parse_config,
    require_path,
    run_main,
    save_config,
)
from faster_rcnn.src.model_utils.configuration.schema import read_keys

DEFAULT = Path(config_module.DEFAULT_CONFIG)


# ---- the shipped defaults

def test_defaults_load_and_keep_known_values():
    config = load_config()
    assert (config.img_width, config.img_height, config.num_classes, len(config.coco_classes)) == (1280, 768, 81, 81)
    assert config.roi_layer.to_dict() == {"type": "RoIAlign", "out_size": 7, "sample_num": 2, "aligned": True}
    assert config.rcnn_target_stds == (0.1, 0.1, 0.2, 0.2)
    assert config.weight_decay == 1e-4
    assert config.coco_classes[1] == "person"
    assert config.coco_classes[80] == "toothbrush"


def test_every_key_has_a_section_and_a_help_line_of_its_own():
    keys = read_keys(DEFAULT)
    assert [key.name for key in keys.values() if len(key.help) < 5] == []
    assert [key.name for key in keys.values() if key.section == "Keys"] == []
    for key in keys.values():
        assert not key.choices or str(key.default) in key.choices


def test_tables_of_old_names_agree_with_the_keys():
    keys = set(read_keys(DEFAULT))
    assert set(ALIASES.values()) <= keys
    assert not (set(ALIASES) | set(RETIRED)) & keys
    assert not set(ALIASES) & set(RETIRED)


# ---- layers

def test_precedence_default_then_base_then_file_then_command_line(write):
    write("base.yaml", "batch_size: 4\nepoch_size: 5\nseed: 6\n")
    path = write("variant.yaml", "__BASE__: base.yaml\nepoch_size: 7\nseed: 8\n")
    config = parse_config([f"--config_path={path}", "--seed", "9"])
    assert (config.img_width, config.batch_size, config.epoch_size, config.seed) == (1280, 4, 7, 9)


def test_base_may_name_the_defaults_by_path(write):
    path = write("variant.yaml", f"__BASE__: '{DEFAULT}'\nbatch_size: 3\n")
    assert load_config(path).batch_size == 3


def test_mapping_keeps_the_sub_keys_that_a_layer_leaves_out(write):
    path = write("variant.yaml", "roi_layer: {out_size: 5}\n")
    config = parse_config(["--config_path", str(path), "--roi_layer={sample_num: 0}"])
    assert config.roi_layer == {"type": "RoIAlign", "out_size": 5, "sample_num": 0, "aligned": True}
    assert load_config().roi_layer.out_size == 7


def test_config_path_is_relative_to_the_working_directory_else_to_the_model(message, write, monkeypatch):
    model = write("default_config.yaml", DEFAULT.read_text(encoding="utf-8"))
    write("variant.yaml", "seed: 2\n")
    elsewhere = model.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert parse_config(["--config_path=variant.yaml"], model).seed == 2
    (elsewhere / "variant.yaml").write_text("seed: 3\n", encoding="utf-8")
    assert parse_config(["--config_path=variant.yaml"], model).seed == 3
    assert message(parse_config, ["--config_path=none.yaml"], model) == "--config_path: no such file: none.yaml"


def test_circular_bases_are_named(message, write):
    path = write("a.yaml", "__BASE__: b.yaml\n")
    write("b.yaml", "__BASE__: a.yaml\n")
    assert "is circular: a.yaml -> b.yaml -> a.yaml" in message(load_config, path)


@pytest.mark.parametrize(("text", "expected"), [
    ("__BASE__: gone.yaml\n", ":1: __BASE__: no such file: "),
    ("seed: 1\n__BASE__: [a.yaml]\n", ":2: __BASE__: expected the name of a YAML file"),
])
def test_bad_base(message, write, text, expected):
    path = write("variant.yaml", text)
    assert message(load_config, path).startswith(f"{path}{expected}")


def test_empty_files_change_nothing(write):
    for text in ("", "# nothing\n", "---\n"):
        assert load_config(write("empty.yaml", text)) == load_config()


# ---- the object

def test_config_is_frozen():
    config = load_config()
    for change in (lambda: setattr(config, "seed", 2), lambda: delattr(config, "seed"),
                   lambda: setattr(config.roi_layer, "out_size", 2)):
        with pytest.raises(AttributeError, match="frozen"):
            change()
    with pytest.raises(TypeError):
        config["seed"] = 2
    config.to_dict()["sgd_step"].append(3)
    assert config.sgd_step == (8, 11)


def test_config_access():
    config = load_config()
    assert config.seed == config["seed"] == config.get("seed", 5) == 1
    assert config.get("sed", 5) == 5
    assert "seed" in config
    with pytest.raises(AttributeError, match="no config key 'img_widht', did you mean img_width"):
        _ = config.img_widht


def test_config_survives_pickle_and_copy():
    config = load_config(overrides={"seed": 4})
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)
    assert config != load_config()


def test_saved_config_reads_back_equal(tmp_path):
    config = load_config(overrides={
        "base_lr": 1e-7, "sgd_step": [], "multi_scale": [0.1, 1 / 3], "output_path": "a: 'b' #c", "pre_trained": "",
        "coco_classes": ["background", "no", "1", "日本"], "num_classes": 4, "train_data_type": "2017"})
    path = tmp_path / "new folder" / "config.yaml"
    save_config(config, path)
    assert load_config(path) == config
    assert [item.name for item in path.parent.iterdir()] == ["config.yaml"]
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) == set(config)


def test_save_config_names_a_path_that_cannot_be_written(message, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot be written" in message(save_config, load_config(), tmp_path / "file" / "config.yaml")


# ---- required keys

def test_required_keys(message, tmp_path):
    assert message(parse_config, [], required=("checkpoint_path",)) == (
        "checkpoint_path is required: give --checkpoint_path=... or set it in the YAML")
    gone = tmp_path / "gone.ckpt"
    assert message(parse_config, [f"--checkpoint_path={gone}"], required=("checkpoint_path",)) == (
        f"checkpoint_path: no such file or folder: {gone}")
    gone.write_bytes(b"")
    assert parse_config([f"--checkpoint_path={gone}"], required=("checkpoint_path",)).checkpoint_path == str(gone)


def test_require_path_looks_at_the_kind(message, tmp_path):
    config = load_config(overrides={"input": str(tmp_path)})
    assert require_path(config, "input", "folder") == tmp_path
    assert message(require_path, config, "input", "file") == f"input: no such file: {tmp_path}"
    assert message(require_path, config, "pre_trained").startswith("pre_trained is required")


# ---- the process

def test_help_shows_sections_keys_and_defaults(capsys):
    with pytest.raises(SystemExit) as left:
        parse_config(["--help"], description="Trains 100% of it.")
    text = " ".join(capsys.readouterr().out.split())
    assert left.value.code == 0
    assert "Trains 100% of it." in text
    assert "Learning rate: --base_lr FLOAT Learning rate after the warm-up [0..] (default: 0.02)" in text
    assert "--dataset {coco|voc|coco_files|labelme|other|yolo}" in text
    assert "--num_anchors" not in text


@pytest.mark.parametrize(("raised", "status", "line"), [
    (InputError("seed: bad\nvalue"), 2, "tool.py: error: seed: bad value\n"),
    (KeyboardInterrupt(), 130, "tool.py: interrupted\n"),
    (None, 0, ""),
])
def test_run_main_status(monkeypatch, capsys, raised, status, line):
    def main():
        if raised is not None:
            raise raised

    monkeypatch.setattr(sys, "argv", ["/some where/tool.py"])
    with pytest.raises(SystemExit) as left:
        run_main(main)
    assert (left.value.code, capsys.readouterr().err) == (status, line)


def test_run_main_lets_other_faults_through():
    with pytest.raises(ValueError, match="a bug"):
        run_main(lambda: int("a bug"))


def test_import_reads_no_arguments_and_no_mindspore(run_command, repo_dir, tmp_path):
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import faster_rcnn.src.model_utils.config;"
            "import faster_rcnn.src.model_utils.local_adapter; assert 'mindspore' not in sys.modules")
    done = run_command(["python", "-c", code, repo_dir, "--nonsense"], cwd=tmp_path, new_process=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_config_freezes_lists_and_to_dict_restores_them():
    assert Config({"a": {"b": [1, [2]]}}).a.b == (1, (2,))
    assert Config({"a": {"b": [1, [2]]}}).to_dict() == {"a": {"b": [1, [2]]}}
