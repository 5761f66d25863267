# What the arguments of this model's scripts mean: PRETRAINED_MODEL, BACKBONE and COCO_ROOT in this order.
# shellcheck shell=bash

# shellcheck source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

BACKBONES="resnet_v1.5_50, resnet_v1_101, resnet_v1_152, resnet_v1_50, inception_resnet_v2"

set_backbone() {
  local config
  case $1 in
    resnet_v1.5_50 | resnet_v1_50) config=default_config.yaml ;;
    resnet_v1_101) config=default_config_101.yaml ;;
    resnet_v1_152) config=default_config_152.yaml ;;
    inception_resnet_v2) config=default_config_InceptionResnetV2.yaml ;;
    *) fail "BACKBONE: expected one of $BACKBONES, got '$1'" ;;
  esac
  ARGS+=("--config_path=$MODEL_DIR/$config")
  [[ $1 != resnet_v1_50 ]] || ARGS+=("--backbone=$1")
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
