# Same as faster_rcnn/scripts/common.sh
# Functions that the scripts in this folder share; they source this file.
# shellcheck shell=bash
#
# Environment variables of all scripts:
#   DEVICE_TARGET=Ascend|GPU|CPU  overrides the script's device type
#   DRY_RUN=1                     print the command without running it
#   LAUNCHER=mpirun               for several GPUs, instead of msrun; for root, mpirun requires variables that its message names
#   PYTHON=EXE                    instead of python

SCRIPTS=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
MODEL_DIR=$(dirname -- "$SCRIPTS")
LAUNCH_DIR=$(dirname -- "$MODEL_DIR")/utils/launch
# shellcheck source=start.sh
source "$SCRIPTS/start.sh"

PYTHON=${PYTHON:-python}
DEVICE=${DEVICE_ID:-0}
# Flags of train.py or eval.py, flags of the launcher, and its environment; then the environment and the command to run.
# Never expand these arrays while empty: before bash 4.4, an empty array counts as unset.
ARGS=()
LAUNCH=()
ENVIRONMENT=()
EXPORTED=()
COMMAND=()

# say TEXT ...: print one line to stderr; control characters become spaces.
say() {
  local line
  line="$(basename -- "$0"): $*"
  printf '%s\n' "${line//[[:cntrl:]]/ }" >&2
}

fail() {
  say "error: $*"
  exit 2
}

# Print the comment at the top of the script that was called.
usage() {
  sed -nE -e '1d' -e '/^# (Same as|shellcheck)/d' -e '/^#/!q' -e 's/^# ?//p' -- "$0" >&2
  exit "${1:-2}"
}

# begin TARGET LEAST MOST [ARGUMENT ...]: set the device type, and check the number of arguments before the first --key=value.
begin() {
  set_target DEVICE_TARGET "${DEVICE_TARGET:-$1}"
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

# set_target NAME VALUE
set_target() {
  case $2 in
    Ascend | GPU | CPU) TARGET=$2 ;;
    *) fail "$1: expected Ascend, GPU or CPU, got '$2'" ;;
  esac
}

# In some locales, [0-9] matches more than digits. Only checked numbers may enter $(( )) or (( )), which would run the command in
# an index such as a[$(command)].
is_number() { [[ $1 =~ ^[0123456789]+$ ]]; }

# is_word [ARGUMENT ...]: succeed if there is an argument and it is not --key=value.
is_word() { [[ $# -gt 0 && $1 != --* ]]; }

# require_number NAME VALUE: bash would read 010 as eight, and overflow on long numbers.
require_number() {
  is_number "$2" || fail "$1: expected a number, got '$2'"
  [[ ${#2} -le 9 && ($2 == 0 || $2 != 0*) ]] || fail "$1: expected a number below 1000000000 without leading zeros, got '$2'"
}

# require_address NAME VALUE: an IP address or host name.
require_address() {
  [[ $2 =~ ^[0-9A-Za-z_:][0-9A-Za-z_.:%-]*$ ]] || fail "$1: expected an IP address or host name, got '$2'"
}
require_file() { [[ -f $2 ]] || fail "$1: no such file: $2"; }
require_folder() { [[ -d $2 ]] || fail "$1: no such folder: $2"; }

require_program() {
  [[ ${DRY_RUN:-0} == 1 ]] || type -P -- "$1" >/dev/null || fail "$1 is not on the PATH: $2"    # -P ignores builtins such as eval
}

require_python() {
  [[ $PYTHON != -* ]] || fail "PYTHON: expected a program, got '$PYTHON'"
  require_program "$PYTHON" "activate the environment, or set PYTHON=..."
}

# set_pretrained NAME PATH: `none` and "" mean no checkpoint.
set_pretrained() {
  case $2 in
    '' | none | None | NONE) ARGS+=("--pre_trained=") ;;
    *)
      # Without a slash or dot it is the name of published weights (docs/weights.md), which train.py resolves.
      [[ $2 != *[/.]* ]] || require_file "$1" "$2"
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
  # val_anno_path in the configuration would override anno_path.
  ARGS+=("--anno_path=$1" "--val_anno_path=$1" "--checkpoint_path=$2")
}

# take_device_and_data [DEVICE_ID] [MINDRECORD_DIR] [--key=value ...]: a number is DEVICE_ID. Sets TAKEN to the words used.
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

# take_data [MINDRECORD_DIR] [--key=value ...]: adds the number of words used to TAKEN.
take_data() {
  if is_word "$@"; then
    ARGS+=("--mindrecord_dir=$1")
    TAKEN=$((TAKEN + 1))
    shift
  fi
  ! is_word "$@" || usage
}

# set_workers DEVICE_NUM|RANK_TABLE_FILE: set the processes of run_many. Rank tables are for Ascend; other devices use only the
# number of devices in it, which DEVICE_NUM in the environment overrides.
set_workers() {
  local workers=$1 options=()
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
  [[ -f $1 ]] || fail "expected a rank table or a number of devices; no such file: $1"
  require_launcher rank_table.py
  DRY_RUN=0 require_python    # a dry run reads the table as well
  read_table ${options[@]+"${options[@]}"} "$1"
}

# read_table [--count] RANK_TABLE_FILE: use the values that rank_table.py prints, which are positional and checked. A file can thus
# neither add a word to the command nor set another variable.
read_table() {
  local output table local_workers node master devices
  output=$("$PYTHON" "$LAUNCH_DIR/rank_table.py" "$@") || exit
  table=${output#*$'\n'}
  IFS=' ' read -r WORKERS local_workers node master devices <<<"${output%%$'\n'*}"
  require_number "rank_table.py: number of devices" "$WORKERS"
  LAUNCH=("--worker_num=$WORKERS")
  [[ $1 != --count ]] || return 0
  ENVIRONMENT=("RANK_TABLE_FILE=${table%/}")
  if [[ $devices != - ]]; then
    [[ $devices =~ ^[0123456789]+(,[0123456789]+)*$ ]] || fail "rank_table.py: expected device numbers, got '$devices'"
    ENVIRONMENT+=("ASCEND_RT_VISIBLE_DEVICES=$devices")
  fi
  if [[ $master != - ]]; then
    require_number "rank_table.py: devices of this machine" "$local_workers"
    require_number "rank_table.py: number of this machine" "$node"
    require_address "rank_table.py: server_id" "$master"
    LAUNCH+=("--local_worker_num=$local_workers" "--node_rank=$node" "--master_addr=$master")
  fi
}

require_launcher() {
  [[ -f $LAUNCH_DIR/$1 ]] || fail "utils/launch/$1 not found: utils/ must be beside the model directory; copy both"
}

# option NAME DEFAULT [--key=value ...]: print the value of the last --NAME, or DEFAULT.
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

# next_folder NAME: print the first of NAME, NAME_2, NAME_3, ... without results of an evaluation or of the C++ program.
next_folder() {
  local folder=$1 n=2
  while [[ -e $folder/detections.json || -e $folder/metrics.json || -e $folder/results.jsonl ]]; do
    folder=$1_$n
    n=$((n + 1))
  done
  printf '%s' "$folder"
}

# build_one PROGRAM OUTPUT_PATH [--key=value ...]: set COMMAND to run a program of this model on one device.
build_one() {
  local program=$1 output=$2
  shift 2
  require_python
  require_number DEVICE_ID "$DEVICE"
  ARGS+=("--device_target=$TARGET" "--device_id=$DEVICE" "--output_path=$output")
  EXPORTED=()
  COMMAND=("$PYTHON" "$MODEL_DIR/$program" "${ARGS[@]}" "$@")
}

# build_many PROGRAM OUTPUT_PATH [--key=value ...]: set COMMAND to run it on the devices of set_workers.
build_many() {
  local program=$1 output=$2 log word
  shift 2
  log=$(option output_path "$output" "$@")/log
  [[ $log != -* ]] || log=./$log
  require_python
  ARGS+=("--distribute=True" "--output_path=$output")
  case ${LAUNCHER:-msrun} in
    msrun)
      require_launcher run.py
      EXPORTED=(${ENVIRONMENT[@]+"${ENVIRONMENT[@]}"})
      COMMAND=("$PYTHON" "$LAUNCH_DIR/run.py" "${LAUNCH[@]}" "--log_dir=$log" "--device_target=$TARGET")
      ;;
    mpirun)
      [[ $TARGET == GPU ]] || fail "LAUNCHER: mpirun works on GPUs only; use msrun on $TARGET"
      require_program mpirun "install Open MPI, or unset LAUNCHER"
      ARGS+=("--device_target=$TARGET")
      unset DEVICE_ID   # each process uses the device with the number of its rank
      for word in "$@"; do
        [[ $word != : ]] || fail "LAUNCHER: mpirun would run the arguments after ':' as another program"
      done
      EXPORTED=("RANK_SIZE=$WORKERS")
      COMMAND=(mpirun -n "$WORKERS" --output-filename "$log" --merge-stderr-to-stdout "$PYTHON")
      ;;
    *) fail "LAUNCHER: expected msrun or mpirun, got '$LAUNCHER'" ;;
  esac
  COMMAND+=("$MODEL_DIR/$program" "${ARGS[@]}" "$@")
}

# run_one PROGRAM OUTPUT_PATH [--key=value ...]; run_many takes the same arguments
run_one() {
  build_one "$@"
  start
}

run_many() {
  build_many "$@"
  start
}
