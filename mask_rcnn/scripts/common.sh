# Same as faster_rcnn/scripts/common.sh
# What the scripts of this folder share; they source it.
# shellcheck shell=bash
#
# Environment that every script takes:
#   DEVICE_TARGET=Ascend|GPU|CPU  in place of the script's own
#   DRY_RUN=1                     print what would be started, start nothing
#   LAUNCHER=mpirun               for several GPUs, in place of msrun
#   PYTHON=EXE                    in place of python

SCRIPTS=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
MODEL_DIR=$(dirname -- "$SCRIPTS")
LAUNCH_DIR=$(dirname -- "$MODEL_DIR")/utils/launch
PYTHON=${PYTHON:-python}
DEVICE=${DEVICE_ID:-0}
# Flags of train.py or eval.py; of the launcher; what the launcher finds in its environment. Never expanded while empty:
# bash below 4.4 takes an empty array for an unset one.
ARGS=()
LAUNCH=()
ENVIRONMENT=()
COMMAND=()

fail() {
  printf '%s: error: %s\n' "$(basename -- "$0")" "$*" >&2
  exit 2
}

# The comment on top of the script that was called.
usage() {
  sed -nE -e '1d' -e '/^# (Same as|shellcheck)/d' -e '/^#/!q' -e 's/^# ?//p' -- "$0" >&2
  exit "${1:-2}"
}

# begin TARGET LEAST MOST [ARGUMENT ...]: the device, and as many arguments before the first --key=value as there should be.
begin() {
  TARGET=${DEVICE_TARGET:-$1}
  case $TARGET in
    Ascend | GPU | CPU) ;;
    *) fail "DEVICE_TARGET: expected Ascend, GPU or CPU, got '$TARGET'" ;;
  esac
  local least=$2 most=$3 words=0 word
  shift 3
  for word in "$@"; do
    case $word in
      -h | --help) usage 0 2>&1 ;;
      --*) break ;;
    esac
    words=$((words + 1))
  done
  ((words >= least && words <= most)) || usage
}

is_number() { [[ $1 =~ ^[0-9]+$ ]]; }

# is_word [ARGUMENT ...]: there is one, and it is no --key=value.
is_word() { [[ $# -gt 0 && $1 != --* ]]; }

# bash takes 010 for eight, and long numbers for others.
require_number() {
  is_number "$2" || fail "$1: expected a number, got '$2'"
  [[ $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] || fail "$1: expected a number below 1000000000 without a 0 in front, got '$2'"
}
require_file() { [[ -f $2 ]] || fail "$1: no such file: $2"; }
require_folder() { [[ -d $2 ]] || fail "$1: no such folder: $2"; }

require_program() {
  [[ ${DRY_RUN:-0} == 1 ]] || command -v -- "$1" >/dev/null || fail "$1 is not on the PATH: $2"
}

require_python() { require_program "$PYTHON" "activate the environment, or say PYTHON=..."; }

# set_pretrained NAME PATH: `none` and "" say that there is none.
set_pretrained() {
  case $2 in
    '' | none | None | NONE) ARGS+=("--pre_trained=") ;;
    *)
      require_file "$1" "$2"
      ARGS+=("--pre_trained=$2")
      ;;
  esac
}

set_coco_root() {
  require_folder COCO_ROOT "$1"
  ARGS+=("--coco_root=$1")
}

# set_validation VALIDATION_JSON_FILE CHECKPOINT_PATH
set_validation() {
  require_file VALIDATION_JSON_FILE "$1"
  require_file CHECKPOINT_PATH "$2"
  # A configuration's own val_anno_path would go before anno_path.
  ARGS+=("--anno_path=$1" "--val_anno_path=$1" "--checkpoint_path=$2")
}

# take_device_and_data [DEVICE_ID] [MINDRECORD_DIR] [--key=value ...]: a number is the device. TAKEN: words that were taken.
take_device_and_data() {
  TAKEN=0
  if is_word "$@" && is_number "$1"; then
    require_number DEVICE_ID "$1"
    DEVICE=$1
    TAKEN=1
    shift
  fi
  take_data "$@"
}

# take_data [MINDRECORD_DIR] [--key=value ...]: adds to TAKEN.
take_data() {
  if is_word "$@"; then
    ARGS+=("--mindrecord_dir=$1")
    TAKEN=$((TAKEN + 1))
    shift
  fi
  ! is_word "$@" || usage
}

# set_workers DEVICE_NUM|RANK_TABLE_FILE: the processes of run_many. A rank table is for Ascend: elsewhere it says how many, where
# DEVICE_NUM in the environment does not.
set_workers() {
  local workers=$1 options=() lines line
  if ! is_number "$1" && [[ $TARGET != Ascend ]]; then
    workers=${DEVICE_NUM:-$1}
    options=(--count)
  fi
  if is_number "$workers" || [[ $workers != "$1" ]]; then
    require_number DEVICE_NUM "$workers"
    ((workers > 0)) || fail "DEVICE_NUM: expected at least 1, got $workers"
    WORKERS=$workers
    LAUNCH=("--worker_num=$workers")
    return
  fi
  [[ -f $1 ]] || fail "expected a rank table or a number of devices, there is no such file: $1"
  require_launcher rank_table.py
  DRY_RUN=0 require_python    # a dry run reads the table too
  lines=$("$PYTHON" "$LAUNCH_DIR/rank_table.py" ${options[@]+"${options[@]}"} "$1") || exit
  while IFS= read -r line; do
    case $line in
      --*) LAUNCH+=("$line") ;;
      *) ENVIRONMENT+=("$line") ;;
    esac
    [[ $line != --worker_num=* ]] || WORKERS=${line#*=}
  done <<<"$lines"
}

require_launcher() {
  [[ -f $LAUNCH_DIR/$1 ]] || fail "utils/launch/$1 is not there: utils/ stands beside the model's folder; copy both"
}

# option NAME DEFAULT [--key=value ...]: the value of the last --NAME.
option() {
  local name=$1 value=$2
  shift 2
  while [[ $# -gt 0 ]]; do
    case $1 in
      "--$name="*) value=${1#*=} ;;
      "--$name") value=${2-} ;;
    esac
    shift
  done
  printf '%s' "$value"
}

# next_folder NAME: NAME, or NAME_2, NAME_3, ..., the first without results of an evaluation or of the C++ program.
next_folder() {
  local folder=$1 n=2
  while [[ -e $folder/detections.json || -e $folder/metrics.json || -e $folder/results.jsonl ]]; do
    folder=$1_$n
    n=$((n + 1))
  done
  printf '%s' "$folder"
}

# build_one PROGRAM OUTPUT_PATH [--key=value ...]: COMMAND runs a program of this model on one device.
build_one() {
  local program=$1 output=$2
  shift 2
  require_python
  ARGS+=("--device_target=$TARGET" "--device_id=$DEVICE" "--output_path=$output")
  COMMAND=("$PYTHON" "$MODEL_DIR/$program" "${ARGS[@]}" "$@")
}

# build_many PROGRAM OUTPUT_PATH [--key=value ...]: COMMAND runs it on the devices that set_workers was told.
build_many() {
  local program=$1 output=$2 log
  shift 2
  log=$(option output_path "$output" "$@")/log
  require_python
  ARGS+=("--distribute=True" "--output_path=$output")
  case ${LAUNCHER:-msrun} in
    msrun)
      require_launcher run.py
      ((${#ENVIRONMENT[@]} == 0)) || COMMAND=("${ENVIRONMENT[@]}")
      COMMAND+=("$PYTHON" "$LAUNCH_DIR/run.py" "${LAUNCH[@]}" "--log_dir=$log" "--device_target=$TARGET")
      ;;
    mpirun)
      [[ $TARGET == GPU ]] || fail "LAUNCHER: mpirun is for GPUs; $TARGET takes msrun"
      require_program mpirun "install Open MPI, or leave LAUNCHER out"
      ARGS+=("--device_target=$TARGET")
      unset DEVICE_ID   # each process takes the device of its own number
      COMMAND=("RANK_SIZE=$WORKERS" mpirun)
      ((EUID != 0)) || COMMAND+=(--allow-run-as-root)
      COMMAND+=(-n "$WORKERS" --output-filename "$log" --merge-stderr-to-stdout "$PYTHON")
      ;;
    *) fail "LAUNCHER: expected msrun or mpirun, got '$LAUNCHER'" ;;
  esac
  COMMAND+=("$MODEL_DIR/$program" "${ARGS[@]}" "$@")
}

print_command() {
  printf '%q ' "${COMMAND[@]:0:${#COMMAND[@]}-1}"
  printf '%q\n' "${COMMAND[${#COMMAND[@]}-1]}"
}

# Run COMMAND in place of this shell, so that its status and its signals are the program's.
start() {
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    print_command
    exit 0
  fi
  exec env "${COMMAND[@]}"
}

# Run COMMAND with this shell waiting: signals go on to the program. Returns its status.
start_and_wait() {
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    print_command
    return
  fi
  local child status=0
  set -m    # a process group of its own: without, bash has it ignore Ctrl-C
  env "${COMMAND[@]}" &
  child=$!
  set +m
  # shellcheck disable=SC2064
  trap "kill -INT $child 2>/dev/null || :" INT
  # shellcheck disable=SC2064
  trap "kill -TERM $child 2>/dev/null || :" TERM HUP
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do    # a signal ended the waiting, not the program
    status=0
    wait "$child" || status=$?
  done
  trap - INT TERM HUP
  return "$status"
}

# run_one PROGRAM OUTPUT_PATH [--key=value ...], run_many likewise
run_one() {
  build_one "$@"
  start
}

run_many() {
  build_many "$@"
  start
}
