# Inference with the C++ program in ascend310_infer; run_infer_310.sh and run_infer_cpp.sh source this file.
# shellcheck shell=bash

# shellcheck source=common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

PROGRAM_DIR=$(dirname -- "$MODEL_DIR")/ascend310_infer
MOST_DEVICES=64

# set_device Ascend|CPU
set_device() {
  case $1 in
    Ascend | CPU) TARGET=$1 ;;
    GPU) fail "DEVICE_TYPE: the C++ program supports Ascend and CPU; to run the file on a GPU, use Python:" \
      "eval.py --mindir_path=FILE --device_target=GPU, or infer.py" ;;
    *) fail "DEVICE_TYPE: expected Ascend or CPU, got '$1'" ;;
  esac
}

set_mindir() {
  require_file MINDIR_PATH "$1"
  [[ $1 == *.mindir ]] || fail "MINDIR_PATH: expected a .mindir file, as export.py --file_format=MINDIR writes it, got '$1'"
  MINDIR=$1
}

# set_data DATA_PATH [ANN_FILE]: an image folder and its annotations or, without ANN_FILE, a COCO folder.
set_data() {
  require_folder DATA_PATH "$1"
  IMAGES=$1
  local annotations=${2-}
  if [[ -z $annotations ]]; then
    IMAGES=$1/val2017
    annotations=$1/annotations/instances_val2017.json
    [[ -d $IMAGES && -f $annotations ]] ||
      fail "DATA_PATH: $1 lacks val2017/ or annotations/instances_val2017.json: give ANN_FILE after it"
  fi
  [[ -e $annotations ]] || fail "ANN_FILE: no such file: $annotations"
  # val_ keys in the configuration would override the others.
  DATA=("--image_dir=$IMAGES" "--anno_path=$annotations" "--val_image_dir=$IMAGES" "--val_anno_path=$annotations")
}

# set_size [IMAGE_WIDTH IMAGE_HEIGHT]
set_size() {
  [[ $# -eq 0 ]] && return
  require_number IMAGE_WIDTH "$1"
  [[ $# -eq 2 ]] || fail "IMAGE_HEIGHT is required after IMAGE_WIDTH"
  require_number IMAGE_HEIGHT "$2"
  SETTINGS+=("--img_width=$1" "--img_height=$2")
}

set_keep_ratio() {
  case $1 in
    true | True | TRUE) SETTINGS+=("--keep_ratio=True") ;;
    false | False | FALSE) SETTINGS+=("--keep_ratio=False") ;;
    *) fail "KEEP_RATIO: expected true or false, got '$1'" ;;
  esac
}

set_device_id() {
  require_number DEVICE_ID "$1"
  DEVICE=$1
}

# Split the arguments: words before the first --key=value into WORDS, the rest into OPTIONS.
split_words() {
  WORDS=()
  while is_word "$@"; do
    WORDS+=("$1")
    shift
  done
  OPTIONS=("$@")
}

# infer_310 MINDIR_PATH DATA_PATH [ANN_FILE] [IMAGE_WIDTH IMAGE_HEIGHT] [DEVICE_ID] [--key=value ...]: a single number after the
# data is DEVICE_ID or, if no machine has that many devices, a width without a height.
infer_310() {
  begin Ascend 2 6 "$@"
  set_device "$TARGET"
  split_words "$@"
  set_mindir "${WORDS[0]}"
  local rest=("${WORDS[@]:2}") annotations=
  if ((${#rest[@]} > 0)) && ! is_number "${rest[0]}"; then
    annotations=${rest[0]}
    rest=("${rest[@]:1}")
  fi
  set_data "${WORDS[1]}" "$annotations"
  case ${#rest[@]} in
    0) ;;
    1)
      set_device_id "${rest[0]}"
      ((DEVICE < MOST_DEVICES)) || set_size "$DEVICE"    # reports the missing height
      ;;
    2) set_size "${rest[@]}" ;;
    3)
      set_size "${rest[@]:0:2}"
      set_device_id "${rest[2]}"
      ;;
    *) usage ;;
  esac
  infer_and_score ${OPTIONS[@]+"${OPTIONS[@]}"}
}

# infer_cpp MINDIR_PATH DATA_PATH ANNO_PATH DEVICE_TYPE [IMAGE_WIDTH IMAGE_HEIGHT] [KEEP_RATIO] [DEVICE_ID] [--key=value ...]
infer_cpp() {
  begin Ascend 4 8 "$@"
  split_words "$@"
  set_mindir "${WORDS[0]}"
  set_data "${WORDS[1]}" "${WORDS[2]}"
  set_device "${WORDS[3]}"
  local rest=("${WORDS[@]:4}")
  if ((${#rest[@]} > 0)); then
    set_size "${rest[@]:0:2}"
  fi
  [[ -z ${rest[2]-} ]] || set_keep_ratio "${rest[2]}"
  [[ -z ${rest[3]-} ]] || set_device_id "${rest[3]}"
  infer_and_score ${OPTIONS[@]+"${OPTIONS[@]}"}
}

# Check the requirements. A dry run skips this and prints the commands for a machine that has them.
require_lite() {
  BUILD=${BUILD_DIR:-$PROGRAM_DIR/build}
  [[ $BUILD != -* ]] || BUILD=./$BUILD    # CMake accepts no -- before the path
  [[ -n ${BUILD_DIR:-} || ! -d $PROGRAM_DIR || -w $PROGRAM_DIR ]] || BUILD=./ascend310_infer_build
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    MS_LITE_HOME=${MS_LITE_HOME:-MS_LITE_HOME}
    return
  fi
  [[ -n ${MS_LITE_HOME:-} ]] || fail "MS_LITE_HOME is not set: set it to the folder of MindSpore Lite (ascend310_infer/README.md)"
  [[ -f $MS_LITE_HOME/runtime/include/api/model.h ]] ||
    fail "MS_LITE_HOME: $MS_LITE_HOME is not a MindSpore Lite folder: it has no runtime/include/api/model.h"
  [[ -d $PROGRAM_DIR ]] || fail "ascend310_infer not found: it must be beside the model directory; copy both"
  require_program cmake "install CMake 3.16 or newer"
  require_program "${CXX:-c++}" "install a C++17 compiler"
}

# first_fault FILE: print the line of CMake's or the compiler's output that names the error.
first_fault() {
  local line
  line=$(grep -m1 -iE 'error:|could not find' -- "$1" || grep -A1 -m1 '^CMake Error' -- "$1" || tail -n1 -- "$1")
  printf '%s' "${line##*$'\n'}" | sed 's/^ *//'
}

# step COMMAND ...: run it, or print it in a dry run. If TO is set, the output goes to that file.
step() {
  COMMAND=("$@")
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    print_command
  elif [[ -n ${TO:-} ]]; then
    "$@" >"$TO" 2>&1 || {
      local status=$?
      fail "building ascend310_infer failed (status $status): $(first_fault "$TO"): see $TO"
    }
  else
    "$@" || exit
  fi
}

# infer_and_score [--key=value ...]: build the program, run it, and write the scores to ./acc.log.
infer_and_score() {
  require_number DEVICE_ID "$DEVICE"
  local output word program=("--device_type=$TARGET" "--device_id=$DEVICE")
  for word in "$@"; do
    shift
    case $word in
      --threads=* | --readers=*) program+=("$word") ;;
      *) set -- "$@" "$word" ;;
    esac
  done
  require_lite
  require_python
  output=$(option output_path "$(next_folder ./infer_result)" "$@")
  [[ ${DRY_RUN:-0} == 1 ]] || mkdir -p -- "$output"
  step "$PYTHON" "$MODEL_DIR/postprocess.py" "--settings_path=$output/settings.txt" "${DATA[@]}" \
    ${SETTINGS[@]+"${SETTINGS[@]}"} "$@"
  TO=$output/build.log step cmake -S "$PROGRAM_DIR" -B "$BUILD" "-DMS_LITE_HOME=$MS_LITE_HOME"
  TO=$output/build.log step cmake --build "$BUILD" --parallel
  GLOG_v=${GLOG_v:-3} step "$BUILD/detect" "--mindir_path=$MINDIR" "--settings_path=$output/settings.txt" "--input_path=$IMAGES" \
    "--output_path=$output/results.jsonl" "${program[@]}"
  step "$PYTHON" "$MODEL_DIR/postprocess.py" "--results_path=$output/results.jsonl" "--output_path=$output" "${DATA[@]}" \
    ${SETTINGS[@]+"${SETTINGS[@]}"} "$@"
  step cp -- "$output/acc.log" ./acc.log
}

SETTINGS=()
DATA=()
TO=    # ignore a variable of this name in the environment
