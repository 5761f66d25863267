# Parse the arguments of this model's scripts: a device or the number of devices, EPOCH_SIZE, LR, DATASET.
# shellcheck shell=bash

# shellcheck source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# TARGET DEVICE_ID EPOCH_SIZE LR DATASET [PRE_TRAINED] [PRE_TRAINED_EPOCH_SIZE] [--key=value ...]
standalone_train() {
  begin "$1" 4 6 "${@:2}"
  require_number DEVICE_ID "$2"
  DEVICE=$2
  local schedule=("$3" "$4")
  set_dataset "$5"
  shift 5
  set_schedule "${schedule[@]}" "$@"
  shift "$TAKEN"
  set_options "$@"
  run_one train.py "./LOG$DEVICE" ${OPTIONS[@]+"${OPTIONS[@]}"}
}

# TARGET DEVICE_NUM EPOCH_SIZE LR DATASET [PRE_TRAINED] [PRE_TRAINED_EPOCH_SIZE] [--key=value ...]
distribute_train() {
  begin "$1" 4 6 "${@:2}"
  _distribute "${@:2:4}" "" "${@:6}"
}

# TARGET DEVICE_NUM EPOCH_SIZE LR DATASET RANK_TABLE_FILE [PRE_TRAINED] [PRE_TRAINED_EPOCH_SIZE] [--key=value ...]
distribute_train_with_table() {
  begin "$1" 5 7 "${@:2}"
  _distribute "${@:2}"
}

# DEVICE_NUM EPOCH_SIZE LR DATASET RANK_TABLE_FILE [PRE_TRAINED] [PRE_TRAINED_EPOCH_SIZE] [--key=value ...]
_distribute() {
  local devices=$1 schedule=("$2" "$3") table=$5
  require_number DEVICE_NUM "$devices"
  set_dataset "$4"
  shift 5
  set_schedule "${schedule[@]}" "$@"
  shift "$TAKEN"
  set_options "$@"
  case $table in
    '' | none | None | NONE) set_workers "$devices" ;;
    *)
      DEVICE_NUM=$devices set_workers "$table"    # on other devices the table need not exist
      ((WORKERS == devices)) || fail "DEVICE_NUM: $devices, but $table has $WORKERS devices"
      ;;
  esac
  run_many train.py ./LOG ${OPTIONS[@]+"${OPTIONS[@]}"}
}

# TARGET DATASET CHECKPOINT_PATH [DEVICE_ID] [--key=value ...]
evaluate() {
  begin "$1" 2 3 "${@:2}"
  set_dataset "$2"
  require_file CHECKPOINT_PATH "$3"
  ARGS+=("--checkpoint_path=$3" "--mindrecord_dir=./eval/mindrecord")
  shift 3
  if is_word "$@"; then
    require_number DEVICE_ID "$1"
    DEVICE=$1
    shift
  fi
  set_options "$@"
  run_one eval.py "$(next_folder ./eval)" ${OPTIONS[@]+"${OPTIONS[@]}"}
}

# set_dataset NAME: a format that default_config.yaml lists for the key `dataset`; voc0712 and voc0712plus are old names of voc.
set_dataset() {
  local name=$1 formats
  case $name in
    voc0712 | voc0712plus) name=voc ;;
  esac
  formats=$(sed -n 's/^# Format of the annotations: {\([^}]*\)}.*/\1/p' "$MODEL_DIR/default_config.yaml")
  if [[ $name == *'|'* || "|$formats|" != *"|$name|"* ]]; then
    formats=${formats//|/, }
    fail "DATASET: expected ${formats%, *} or ${formats##*, }, got '$1'"
  fi
  ARGS+=("--dataset=$name")
}

# set_schedule EPOCH_SIZE LR [PRE_TRAINED] [PRE_TRAINED_EPOCH_SIZE] [...]: LR is the peak rate for any batch size, with cosine decay
# over the epochs. Sets TAKEN to the number of words used after LR.
set_schedule() {
  local epochs=$1 rate=$2 done=0
  TAKEN=0
  require_number EPOCH_SIZE "$epochs"
  shift 2
  if is_word "$@"; then
    set_pretrained PRE_TRAINED "$1"
    TAKEN=1
    shift
  fi
  if is_word "$@"; then
    done=$1
    TAKEN=2
    require_number PRE_TRAINED_EPOCH_SIZE "$done"
    ((done < epochs)) || fail "PRE_TRAINED_EPOCH_SIZE: $done of $epochs epochs leaves nothing to train"
  fi
  [[ $rate =~ ^[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?$ ]] || fail "LR: expected a number, got '$rate'"
  if ((done > 0)); then     # train the remaining epochs, starting at the rate the cosine has reached
    rate=$(awk -v rate="$rate" -v part="$done" -v all="$epochs" \
      'BEGIN { printf "%.8g", rate * (1 + cos(atan2(0, -1) * part / all)) / 2 }')
  fi
  ARGS+=("--epoch_size=$((epochs - done))" "--base_lr=$rate" "--lr_reference_batch=0" "--lr_schedule=cosine")
}

# set_options [--key=value ...]: set OPTIONS, replacing --using_mode=NAME, the old zoo's name of a network, by its configuration.
set_options() {
  local option config
  OPTIONS=()
  for option in "$@"; do
    case $option in
      --using_mode=*)
        case ${option#*=} in
          refinedet_vgg16_320) config=default_config.yaml ;;
          refinedet_vgg16_512) config=default_config_512.yaml ;;
          refinedet_resnet101_320) config=default_config_resnet101.yaml ;;
          refinedet_resnet101_512) config=default_config_resnet101_512.yaml ;;
          *) fail "--using_mode: expected refinedet_{vgg16,resnet101}_{320,512}, got '${option#*=}'" ;;
        esac
        OPTIONS+=("--config_path=$MODEL_DIR/$config")
        ;;
      *) OPTIONS+=("$option") ;;
    esac
  done
}
