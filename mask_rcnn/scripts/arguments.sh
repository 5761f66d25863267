# Parse the arguments of this model's scripts: PRETRAINED_CKPT first, then optional ones that default to the configuration.
# shellcheck shell=bash

# shellcheck source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# TARGET PRETRAINED_CKPT [COCO_ROOT] [DEVICE_ID] [MINDRECORD_DIR] [--key=value ...]
standalone_train() {
  begin "$1" 1 4 "${@:2}"
  set_pretrained PRETRAINED_CKPT "$2"
  shift 2
  take_data_set "$@"
  shift "$TAKEN"
  take_device_and_data "$@"
  shift "$TAKEN"
  run_one train.py ./train "$@"
}

# TARGET RANK_TABLE_FILE|DEVICE_NUM [PRETRAINED_CKPT] [COCO_ROOT] [MINDRECORD_DIR] [--key=value ...]
distribute_train() {
  begin "$1" 1 4 "${@:2}"
  local workers=$2
  shift 2
  if is_word "$@"; then
    set_pretrained PRETRAINED_CKPT "$1"
    shift
  fi
  take_data_set "$@"
  shift "$TAKEN"
  TAKEN=0
  take_data "$@"
  shift "$TAKEN"
  set_workers "$workers"
  run_many train.py ./train_parallel "$@"
}

# TARGET VALIDATION_JSON_FILE CHECKPOINT_PATH [COCO_ROOT] [DEVICE_ID] [MINDRECORD_DIR] [--key=value ...]
evaluate() {
  begin "$1" 2 5 "${@:2}"
  local json=$2
  set_validation "$2" "$3"
  shift 3
  ARGS+=("--mindrecord_dir=./eval/mindrecord")
  take_data_set "$@"
  ((TAKEN > 0)) || find_images "$(dirname -- "$json")"
  shift "$TAKEN"
  take_device_and_data "$@"
  shift "$TAKEN"
  run_one eval.py "$(next_folder ./eval)" "$@"
}

# find_images FOLDER: if it is COCO's annotations/, the images are in its parent.
find_images() {
  if [[ $(basename -- "$1") == annotations ]]; then
    ARGS+=("--coco_root=$(dirname -- "$1")")
  elif [[ $1 == . && $(basename -- "$(pwd -P)") == annotations ]]; then
    ARGS+=("--coco_root=..")
  fi
}

# take_data_set [COCO_ROOT] [...]: a number is DEVICE_ID, not a data set. Sets TAKEN to the number of words used.
take_data_set() {
  TAKEN=0
  if is_word "$@" && ! is_number "$1"; then
    set_coco_root "$1"
    TAKEN=1
  fi
}
