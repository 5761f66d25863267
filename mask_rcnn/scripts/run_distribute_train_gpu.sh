#!/usr/bin/env bash
# Train on several GPUs. LAUNCHER=mpirun uses mpirun instead of msrun.
# usage: bash run_distribute_train_gpu.sh DEVICE_NUM [PRETRAINED_CKPT] [COCO_ROOT] [MINDRECORD_DIR] [--key=value ...]
#   DEVICE_NUM       number of devices on this machine
#   PRETRAINED_CKPT  checkpoint to start from, or none (or "")
#   COCO_ROOT        folder with annotations/, train2017/ and val2017/ (default: as configured)
#   MINDRECORD_DIR   folder of the converted data, written on first use (default: ./train_parallel/mindrecord)
#   --key=value      any key of the configuration; overrides the arguments
# Writes to ./train_parallel.
# DRY_RUN=1 prints the command without running it; DEVICE_TARGET=CPU runs it on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=arguments.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/arguments.sh"
distribute_train GPU "$@"
