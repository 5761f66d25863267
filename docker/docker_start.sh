#!/usr/bin/env bash
# Start a container with a data and a model directory mounted at the same paths, as the calling user.
# usage: bash docker_start.sh IMAGE DATA_DIR MODEL_DIR [COMMAND...]
# DRY_RUN=1 prints the docker command without running it.
# COMMAND defaults to a shell. Ascend devices and NVIDIA GPUs of this machine are available. SHM_SIZE (8g) sets the shared memory,
# DEVICE_DIR (/dev) the folder of the devices, MS_LITE_HOME the folder of MindSpore Lite for inference in C++.
set -euo pipefail

usage() { sed -n '3,6s/^# //p' -- "$0" >&2; exit 2; }
fail() { printf 'docker_start.sh: error: %s\n' "${1//[[:cntrl:]]/ }" >&2; exit 2; }

# folder NAME PATH: print the absolute path of a folder; NAME is the argument's name in the usage.
folder() {
  [[ -d $2 ]] || fail "$1: no such folder: $2"
  local path=$2
  [[ $path == /* ]] || path=./$path    # cd would take - for the previous folder, and search CDPATH without ./
  path=$(CDPATH='' cd -- "$path" && pwd -P && printf x) || fail "$1: cannot be entered: $2"
  path=${path%$'\n'x}
  [[ $path != *[,\"]* ]] || fail "$1: docker does not accept a path with a comma or a quote: $path"
  [[ $path != *[[:cntrl:]]* ]] || fail "$1: docker does not accept a path with a line break or control character: $path"
  printf '%s' "$path"
}

# mount FOLDER [readonly]: mount it at the same path, unless it is mounted already.
MOUNTED=()
mount() {
  local path
  for path in ${MOUNTED[@]+"${MOUNTED[@]}"}; do
    [[ $path != "$1" ]] || return 0
  done
  MOUNTED+=("$1")
  options+=(--mount "type=bind,source=$1,target=$1${2:+,$2}")
}

[[ $# -ge 3 ]] || usage
image=$1
[[ $image == [[:alnum:]]* ]] || fail "IMAGE: expected the name of an image, got '$image'"
size=${SHM_SIZE:-8g}
[[ $size =~ ^[0-9]+(\.[0-9]+)?\ ?([bB]|[kmgtpKMGTP][iI]?[bB]?)?$ ]] || fail "SHM_SIZE: expected a size such as 8g, got '$size'"
data=$(folder DATA_DIR "$2")
model=$(folder MODEL_DIR "$3")
shift 3
devices=${DEVICE_DIR:-/dev}
[[ $devices == /* ]] || devices=./$devices
[[ $devices != *[:[:cntrl:]]* ]] || fail "DEVICE_DIR: docker does not accept a path with a colon or control character: $devices"
[[ ${DRY_RUN:-0} == 1 ]] || type -P docker >/dev/null || fail "docker is not installed"

options=(--rm --init --shm-size "$size" --user "$(id -u):$(id -g)" --env HOME=/tmp --workdir "$model")
mount "$data"
mount "$model"
if [[ -t 0 && -t 1 ]]; then options+=(--interactive --tty); fi

# A model directory mounted by itself needs utils/ beside it and, for inference in C++, ascend310_infer/. The program is then built
# in the current folder of the caller.
if [[ -f $model/train.py ]]; then
  for beside in utils/mindrecord ascend310_infer/src; do
    path=$(dirname -- "$model")/$beside
    if [[ -d $path && ! -d $model/$beside ]]; then mount "${path%/*}" readonly; fi
  done
fi
if [[ -n ${MS_LITE_HOME:-} ]]; then
  lite=$(folder MS_LITE_HOME "$MS_LITE_HOME")
  options+=(--env "MS_LITE_HOME=$lite")
  mount "$lite" readonly
fi

shopt -s nullglob
cards=()
for device in "$devices"/davinci[0-9]*; do
  [[ ! ${device##*/} =~ ^davinci[0-9]+$ ]] || cards+=("$device")
done
if [[ ${#cards[@]} -gt 0 ]]; then
  for device in "${cards[@]}" "$devices"/{davinci_manager,devmm_svm,hisi_hdc}; do
    if [[ -e $device ]]; then options+=(--device "$device"); fi
  done
  for path in /usr/local/Ascend/driver /usr/local/dcmi /usr/local/bin/npu-smi /etc/ascend_install.info /etc/hccn.conf; do
    if [[ -e $path ]]; then options+=(--mount "type=bind,source=$path,target=$path,readonly"); fi
  done
  # The devices belong to a group, and machines that train together use the addresses of the hosts.
  options+=(--group-add "$(stat -c %g -- "${cards[0]}")" --network host)
fi
if type -P nvidia-smi >/dev/null && nvidia-smi --list-gpus >/dev/null 2>&1; then options+=(--gpus all); fi

command=(docker run "${options[@]}" "$image" "${@:-bash}")
if [[ ${DRY_RUN:-0} == 1 ]]; then
  printf '%q ' "${command[@]:0:${#command[@]}-1}"
  printf '%q\n' "${command[${#command[@]}-1]}"
  exit 0
fi
exec "${command[@]}"
