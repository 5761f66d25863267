# Parse the arguments of this model's scripts: PRETRAINED_MODEL, BACKBONE and COCO_ROOT, in this order.
# shellcheck shell=bash

# shellcheck source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# set_backbone NAME: add the configuration that backbones.yaml assigns to it.
set_backbone() {
  local flags
  DRY_RUN=0 require_python    # a dry run reads the table as well
  flags=$("$PYTHON" "$MODEL_DIR/src/model_utils/layers/backbone_table.py" "$MODEL_DIR/src/FasterRcnn/backbones.yaml" "$1" 2>&1) ||
    fail "BACKBONE: $flags"
  ARGS+=("--config_path=$MODEL_DIR/${flags%%$'\n'*}")
  [[ $flags != *$'\n'* ]] || ARGS+=("--backbone=$1")
}

# TARGET PRETRAINED_MODEL BACKBONE COCO_ROOT [DEVICE_ID] [MINDRECORD_DIR] [--key=value ...]
standalone_train() {
  begin "$1" 3 5 "${@:2}"
  set_backbone "$3"
  set_pretrained PRETRAINED_MODEL "$2"
  set_coco_root "$4"
  shift 4
  take_device_and_data "$@"
  shift "$TAKEN"
  run_one train.py ./train "$@"
}

# TARGET RANK_TABLE_FILE|DEVICE_NUM PRETRAINED_MODEL BACKBONE COCO_ROOT [MINDRECORD_DIR] [--key=value ...]
distribute_train() {
  begin "$1" 4 5 "${@:2}"
  set_backbone "$4"
  set_pretrained PRETRAINED_MODEL "$3"
  set_coco_root "$5"
  set_workers "$2"
  shift 5
  TAKEN=0
  take_data "$@"
  shift "$TAKEN"
  run_many train.py ./train_parallel "$@"
}

# TARGET VALIDATION_JSON_FILE CHECKPOINT_PATH BACKBONE COCO_ROOT [DEVICE_ID] [MINDRECORD_DIR] [--key=value ...]
evaluate() {
  begin "$1" 4 6 "${@:2}"
  set_backbone "$4"
  set_validation "$2" "$3"
  set_coco_root "$5"
  shift 5
  ARGS+=("--mindrecord_dir=./eval/mindrecord")
  take_device_and_data "$@"
  shift "$TAKEN"
  run_one eval.py "$(next_folder ./eval)" "$@"
}
