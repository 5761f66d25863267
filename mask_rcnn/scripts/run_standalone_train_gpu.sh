#!/usr/bin/env bash
# Same as mask_rcnn/scripts/run_standalone_train.sh with one Ascend device -> one GPU, Ascend -> GPU, run_standalone_train -> run_standalone_train_gpu
# Train on one GPU.
# usage: bash run_standalone_train_gpu.sh PRETRAINED_CKPT [COCO_ROOT] [DEVICE_ID] [MINDRECORD_DIR] [--key=value ...]
#   PRETRAINED_CKPT  checkpoint to start from, or none (or "")
#   COCO_ROOT        folder with annotations/, train2017/ and val2017/ (default: as configured)
#   DEVICE_ID        device number (default: 0)
#   MINDRECORD_DIR   folder of the converted data, written on first use (default: ./train/mindrecord)
#   --key=value      any key of the configuration; overrides the arguments
# Writes to ./train.
# DRY_RUN=1 prints the command without running it; DEVICE_TARGET=CPU runs it on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=arguments.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/arguments.sh"
standalone_train GPU "$@"
