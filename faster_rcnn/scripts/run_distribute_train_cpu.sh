#!/usr/bin/env bash
# Train in several processes on the CPU.
# usage: bash run_distribute_train_cpu.sh DEVICE_NUM PRETRAINED_MODEL BACKBONE COCO_ROOT [MINDRECORD_DIR] [--key=value ...]
#   DEVICE_NUM        number of processes
#   PRETRAINED_MODEL  checkpoint to start from, or none (or "")
#   BACKBONE          resnet_v1.5_50, resnet_v1_101, resnet_v1_152, resnet_v1_50 or inception_resnet_v2
#   COCO_ROOT         folder with annotations/, train2017/ and val2017/
#   MINDRECORD_DIR    folder of the converted data, written on first use (default: ./train_parallel/mindrecord)
#   --key=value       any key of the configuration; overrides the arguments
# Writes to ./train_parallel. DRY_RUN=1 prints the command without running it.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=arguments.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/arguments.sh"
distribute_train CPU "$@"
