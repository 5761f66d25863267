# Same as faster_rcnn/scripts/detectron2.sh
# Shared by train_full_*.sh and train_performance_*.sh, which source it. The network is that of detectron2_config_101.yaml.
# shellcheck shell=bash

# shellcheck source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

PERF_STEPS=400
# Settings of detectron2's Ascend version beyond its configuration, under detectron2's names; the last of several counts.
RECIPE=(MODEL.RPN.NMS_THRESH 0.8 MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO 2)
FLAGS=(data_path batch_size nnodes node_rank local_addr master_addr master_port pre_trained)

# train_full DEVICES [--flag=value ...]: train, then score the last weights.
train_full() {
  read_flags "$@"
  use_weights needed
  set_length
  build_training "--run_eval=False" ${OPTIONS[@]+"${OPTIONS[@]}"}
  start_and_wait
  ((NODE == 0)) || return 0
  ARGS=("--config_path=$OUTPUT/config.yaml" "--checkpoint_path=$OUTPUT/checkpoint/last.ckpt" "--distribute=False"
    "--mindrecord_dir=$(option mindrecord_dir "$OUTPUT/mindrecord" ${OPTIONS[@]+"${OPTIONS[@]}"})")
  build_one eval.py "$(next_folder "$OUTPUT/eval")"
  start
}

# recipe KEY: print its value, a number, in the configuration.
recipe() {
  local value
  value=$(sed -nE "s/^$1: *([^#]*[^# ])( *(#.*)?)\$/\1/p" "$MODEL_DIR/detectron2_config_101.yaml")
  require_number "$MODEL_DIR/detectron2_config_101.yaml: $1" "$value"
  printf '%s' "$value"
}

# Scale the number of iterations if the batch size differs from the configuration; the rate drops after 2/3 and 8/9 of them. A
# configuration given by the user sets its own length.
set_length() {
  local wanted batch parts steps most
  [[ -z $(option config_path "" ${OPTIONS[@]+"${OPTIONS[@]}"}) ]] || return 0
  wanted=$(recipe lr_reference_batch) || exit
  most=$(recipe max_steps) || exit
  batch=$(recipe batch_size) || exit
  batch=${BATCH:-$((batch * WORKERS))}
  require_number --batch_size "$batch"
  parts=$(option accumulate_steps 1 ${OPTIONS[@]+"${OPTIONS[@]}"})
  require_number --accumulate_steps "$parts"
  batch=$((batch * parts))
  ((batch > 0 && batch != wanted)) || return 0
  steps=$(((most * wanted + batch / 2) / batch))
  RECIPE+=(SOLVER.MAX_ITER "$steps" SOLVER.STEPS "($(((2 * steps + 1) / 3)), $(((8 * steps + 4) / 9)))")
}

# train_performance DEVICES [--flag=value ...]: run a fixed number of steps; train.py prints their speed.
train_performance() {
  read_flags "$@"
  use_weights optional
  build_training "--perf_steps=${ITERATIONS:-$PERF_STEPS}" ${OPTIONS[@]+"${OPTIONS[@]}"}
  start
}

# train_performance_nodes DEVICES_PER_MACHINE [--flag=value ...]: the same, as one of several machines.
train_performance_nodes() {
  local flag
  begin Ascend 0 0 "${@:2}"
  [[ $# -eq 1 ]] || for flag in data_path batch_size nnodes node_rank local_addr master_addr; do
    [[ -n $(option "$flag" "" "${@:2}") ]] || fail "--$flag is required"
  done
  train_performance "$@"
}

# read_flags DEVICES [--flag=value ...] [NAME VALUE ...]: set DATA, NODES, NODE and what depends on them; the rest is OPTIONS.
read_flags() {
  begin Ascend 0 0 "${@:2}"
  [[ $# -gt 1 ]] || usage
  DEVICES=$1
  DATA='' BATCH='' NODES=1 NODE=0 MASTER='' PORT='' WEIGHTS='' ITERATIONS='' OPTIONS=()
  local flag local_addr='' name=''
  for flag in "${@:2}"; do
    if [[ -n $name ]]; then
      take_setting "$name" "$flag"
      name=''
      continue
    fi
    case $flag in
      OUTPUT_DIR | MODEL.DEVICE | MODEL.WEIGHTS | SOLVER.IMS_PER_BATCH | SOLVER.MAX_ITER) name=$flag ;;
      --data_path=*) DATA=${flag#*=} ;;
      --batch_size=*) BATCH=${flag#*=} ;;
      --nnodes=*) NODES=${flag#*=} ;;
      --node_rank=*) NODE=${flag#*=} ;;
      --local_addr=*) local_addr=${flag#*=} ;;
      --master_addr=*) MASTER=${flag#*=} ;;
      --master_port=*) PORT=${flag#*=} ;;
      --pre_trained=*) WEIGHTS=${flag#*=} ;;
      *)
        [[ " ${FLAGS[*]/#/--} " != *" $flag "* ]] || fail "$flag: expected $flag=VALUE"
        OPTIONS+=("$flag")
        ;;
    esac
  done
  [[ -z $name ]] || fail "$name: expected a value after it"
  check_flags
  # Also used for scoring.
  DEVICE=$(option device_id "$DEVICE" ${OPTIONS[@]+"${OPTIONS[@]}"})
  require_number --device_id "$DEVICE"
  set_target --device_target "$(option device_target "$TARGET" ${OPTIONS[@]+"${OPTIONS[@]}"})"
  OUTPUT=$(option output_path "./$(basename -- "$0" .sh)" ${OPTIONS[@]+"${OPTIONS[@]}"})
  [[ -z $local_addr ]] || require_address --local_addr "$local_addr"
  [[ -z $local_addr || $TARGET != Ascend ]] || ENVIRONMENT=("HCCL_IF_IP=$local_addr")
}

# take_setting NAME VALUE: handle detectron2's names of settings that the scripts themselves control.
take_setting() {
  case $1 in
    OUTPUT_DIR) OPTIONS+=("--output_path=$2") ;;
    MODEL.WEIGHTS) WEIGHTS=$2 ;;
    SOLVER.IMS_PER_BATCH) BATCH=$2 ;;
    SOLVER.MAX_ITER)
      ITERATIONS=$2
      OPTIONS+=("$1" "$2")
      ;;
    MODEL.DEVICE)
      case $2 in
        npu | npu:*) TARGET=Ascend ;;
        cuda | cuda:*) TARGET=GPU ;;
        cpu) TARGET=CPU ;;
        *) fail "$1: expected npu, cuda or cpu, or npu:3, got '$2'" ;;
      esac
      [[ $2 != *:* ]] || DEVICE=${2#*:}
      require_number "$1" "$DEVICE"
      ;;
  esac
}

check_flags() {
  [[ -n $DATA ]] || fail "--data_path is required: the folder of the data set"
  require_folder --data_path "$DATA"
  local folder
  COCO=$DATA
  for folder in coco coco2017; do
    [[ -d $DATA/annotations || ! -d $DATA/$folder/annotations ]] || COCO=$DATA/$folder
  done
  require_number DEVICE_NUM "$DEVICES"
  require_number --nnodes "$NODES"
  require_number --node_rank "$NODE"
  ((DEVICES > 0 && NODES > 0)) || fail "DEVICE_NUM and --nnodes: expected at least 1"
  ((NODE < NODES)) || fail "--node_rank: expected 0 to $((NODES - 1)) for --nnodes=$NODES, got $NODE"
  ((NODES == 1)) || [[ -n $MASTER ]] || fail "--master_addr is required: the address of machine 0"
  [[ -z $MASTER ]] || require_address --master_addr "$MASTER"
  [[ -z $PORT ]] || require_number --master_port "$PORT"
  WORKERS=$((DEVICES * NODES))
  require_number "DEVICE_NUM on all machines of --nnodes" "$WORKERS"
  [[ -n $BATCH ]] || return 0
  require_number --batch_size "$BATCH"
  ((BATCH > 0 && BATCH % WORKERS == 0)) || fail "--batch_size: $BATCH images over all devices are not divisible by $WORKERS devices"
}

# use_weights needed|optional: use --pre_trained, or else R-101.pkl beside or in the data set, converted if necessary.
use_weights() {
  local file
  if [[ -z $WEIGHTS ]]; then
    for file in "$DATA/R-101.pkl" "$DATA/../R-101.pkl" "$(dirname -- "$DATA")/R-101.pkl"; do
      [[ ! -f $file ]] || WEIGHTS=$file
    done
  fi
  if [[ -z $WEIGHTS && $1 == needed ]]; then
    fail "no R-101.pkl beside $DATA: put it there, give --pre_trained=FILE, or give --pre_trained=none to train from scratch"
  elif [[ -z $WEIGHTS ]]; then
    WEIGHTS=none
    say "no R-101.pkl beside $DATA: using random weights, which does not affect the speed"
  fi
  [[ $WEIGHTS == none || -f $WEIGHTS ]] || fail "--pre_trained: no such file: $WEIGHTS"
  if [[ $WEIGHTS == none || $WEIGHTS == *.ckpt ]]; then
    set_pretrained --pre_trained "$WEIGHTS"
  else
    convert_weights
  fi
}

# Convert weights of another framework, or of a ResNet, into OUTPUT, once.
convert_weights() {
  local file
  file=$OUTPUT/backbone_$(basename -- "${WEIGHTS%.*}").ckpt
  if [[ ! -f $file || $WEIGHTS -nt $file ]]; then
    require_python
    [[ ${DRY_RUN:-0} == 1 ]] || mkdir -p -- "$OUTPUT"
    COMMAND=("$PYTHON" "$MODEL_DIR/src/convert_checkpoint.py" "--ckpt_file=$WEIGHTS" "--output_file=$file")
    start_and_wait
  fi
  ARGS+=("--pre_trained=$file")
}

# build_training [--key=value ...]: set COMMAND to train on all devices.
build_training() {
  ARGS=("${RECIPE[@]}" "--config_path=$MODEL_DIR/detectron2_config_101.yaml" "--coco_root=$COCO" "${ARGS[@]}")
  [[ $TARGET != CPU ]] || ARGS+=("--amp_level=O0")    # the configuration's float16 does not work on the CPU
  [[ -z $BATCH ]] || ARGS+=("--batch_size=$((BATCH / WORKERS))")
  if ((WORKERS == 1)); then
    build_one train.py "$OUTPUT" "$@"
    return
  fi
  LAUNCH=("--worker_num=$WORKERS")
  ((NODES == 1)) || LAUNCH+=("--local_worker_num=$DEVICES" "--node_rank=$NODE" "--master_addr=$MASTER")
  [[ -z $PORT ]] || LAUNCH+=("--master_port=$PORT")
  build_many train.py "$OUTPUT" "$@"
}
