# Same as faster_rcnn/scripts/common.sh
# What the scripts of this folder share; they source it.
# shellcheck shell=bash
#
# Environment that every script takes:
#   DEVICE_TARGET=Ascend|GPU|CPU  in place of the script's own
#   DRY_RUN=1                     print what would be started, start nothing
#   LAUNCHER=mpirun               for several GPUs, in place of msrun; as root it asks for variables of Open MPI, which it names
#   PYTHON=EXE                    in place of python

SCRIPTS=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
MODEL_DIR=$(dirname -- "$SCRIPTS")
LAUNCH_DIR=$(dirname -- "$MODEL_DIR")/utils/launch
# shellcheck source=start.sh
source "$SCRIPTS/start.sh"

PYTHON=${PYTHON:-python}
DEVICE=${DEVICE_ID:-0}
# Flags of train.py or eval.py; of the launcher; what the launcher finds in its environment. Then what is started: variables and
# command. Never expanded while empty: bash below 4.4 takes an empty array for an unset one.
ARGS=()
LAUNCH=()
ENVIRONMENT=()
EXPORTED=()
COMMAND=()

# say TEXT ...: one line, whatever it quotes.
say() {
  local line
  line="$(basename -- "$0"): $*"
  printf '%s\n' "${line//[[:cntrl:]]/ }" >&2
}

fail() {
  say "error: $*"
  exit 2
}

# The comment on top of the script that was called.
usage() {
  sed -nE -e '1d' -e '/^# (Same as|shellcheck)/d' -e '/^#/!q' -e 's/^# ?//p' -- "$0" >&2
  exit "${1:-2}"
}

# begin TARGET LEAST MOST [ARGUMENT ...]: the device, and as many arguments before the first --key=value as there should be.
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

# The digits one by one: in some locales [0-9] is more. What has not passed here must not enter $(( )) or (( )), which run
# commands in an index such as a[$(command)].
is_number() { [[ $1 =~ ^[0123456789]+$ ]]; }

# is_word [ARGUMENT ...]: there is one, and it is no --key=value.
is_word() { [[ $# -gt 0 && $1 != --* ]]; }

# bash takes 010 for eight, and long numbers for others.
require_number() {
  is_number "$2" || fail "$1: expected a number, got '$2'"
  [[ ${#2} -le 9 && ($2 == 0 || $2 != 0*) ]] || fail "$1: expected a number below 1000000000 without a 0 in front, got '$2'"
}

# An IP address or the name of a machine.
require_address() {
  [[ $2 =~ ^[0-9A-Za-z_:][0-9A-Za-z_.:%-]*$ ]] || fail "$1: expected the address of a machine, got '$2'"
}
require_file() { [[ -f $2 ]] || fail "$1: no such file: $2"; }
require_folder() { [[ -d $2 ]] || fail "$1: no such folder: $2"; }

require_program() {
  [[ ${DRY_RUN:-0} == 1 ]] || type -P -- "$1" >/dev/null || fail "$1 is not on the PATH: $2"    # a file: eval is none
}

require_python() {
  [[ $PYTHON != -* ]] || fail "PYTHON: expected a program, got '$PYTHON'"
  require_program "$PYTHON" "activate the environment, or say PYTHON=..."
}

# set_pretrained NAME PATH: `none` and "" say that there is none.
set_pretrained() {
  case $2 in
    '' | none | None | NONE) ARGS+=("--pre_trained=") ;;
    *)
      # Neither / nor a dot: a name of published weights (docs/weights.md), which train.py knows.
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
  [[ -f $1 ]] || fail "expected a rank table or a number of devices, there is no such file: $1"
  require_launcher rank_table.py
  DRY_RUN=0 require_python    # a dry run reads the table too
  read_table ${options[@]+"${options[@]}"} "$1"
}

# read_table [--count] RANK_TABLE_FILE: what rank_table.py prints about it, each value in its place. A file cannot add a word to
# the command, nor choose the name of a variable.
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
    [[ $devices =~ ^[0123456789]+(,[0123456789]+)*$ ]] || fail "rank_table.py: expected numbers of devices, got '$devices'"
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
  require_number DEVICE_ID "$DEVICE"
  ARGS+=("--device_target=$TARGET" "--device_id=$DEVICE" "--output_path=$output")
  EXPORTED=()
  COMMAND=("$PYTHON" "$MODEL_DIR/$program" "${ARGS[@]}" "$@")
}

# build_many PROGRAM OUTPUT_PATH [--key=value ...]: COMMAND runs it on the devices that set_workers was told.
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
      [[ $TARGET == GPU ]] || fail "LAUNCHER: mpirun is for GPUs; $TARGET takes msrun"
      require_program mpirun "install Open MPI, or leave LAUNCHER out"
      ARGS+=("--device_target=$TARGET")
      unset DEVICE_ID   # each process takes the device of its own number
      for word in "$@"; do
        [[ $word != : ]] || fail "LAUNCHER: mpirun would start what follows the argument ':' as another program"
      done
      EXPORTED=("RANK_SIZE=$WORKERS")
      COMMAND=(mpirun -n "$WORKERS" --output-filename "$log" --merge-stderr-to-stdout "$PYTHON")
      ;;
    *) fail "LAUNCHER: expected msrun or mpirun, got '$LAUNCHER'" ;;
  esac
  COMMAND+=("$MODEL_DIR/$program" "${ARGS[@]}" "$@")
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
