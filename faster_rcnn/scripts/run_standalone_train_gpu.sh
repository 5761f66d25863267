#!/usr/bin/env bash
# Same as faster_rcnn/scripts/run_standalone_train_ascend.sh with one Ascend device -> one GPU, Ascend -> GPU, ascend -> gpu
# Train on one GPU.
# usage: bash run_standalone_train_gpu.sh PRETRAINED_MODEL BACKBONE COCO_ROOT [DEVICE_ID] [MINDRECORD_DIR] [--key=value ...]
#   PRETRAINED_MODEL  checkpoint to start from, or none (or "")
#   BACKBONE          resnet_v1.5_50, resnet_v1_101, resnet_v1_152, resnet_v1_50 or inception_resnet_v2
#   COCO_ROOT         folder with annotations/, train2017/ and val2017/
#   DEVICE_ID         device number (default: 0)
#   MINDRECORD_DIR    folder of the converted data, written on first use (default: ./train/mindrecord)
#   --key=value       any key of the configuration; overrides the arguments
# Writes to ./train.
# DRY_RUN=1 prints the command without running it; DEVICE_TARGET=CPU runs it on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=arguments.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/arguments.sh"
standalone_train GPU "$@"
