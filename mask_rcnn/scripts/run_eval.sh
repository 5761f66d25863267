#!/usr/bin/env bash
# Score a checkpoint on one Ascend device: boxes and masks.
# usage: bash run_eval.sh VALIDATION_JSON_FILE CHECKPOINT_PATH [COCO_ROOT] [DEVICE_ID] [MINDRECORD_DIR] [--key=value ...]
#   VALIDATION_JSON_FILE  annotations of the images
#   CHECKPOINT_PATH       weights of the detector
#   COCO_ROOT             folder with val2017/ (default: beside the annotations/ of VALIDATION_JSON_FILE, else as configured)
#   DEVICE_ID             device number (default: 0)
#   MINDRECORD_DIR        folder of the converted data, written on first use (default: ./eval/mindrecord)
#   --key=value           any key of the configuration; overrides the arguments
# Writes to ./eval, or ./eval_2 and so on if it has results.
# DRY_RUN=1 prints the command without running it; DEVICE_TARGET=CPU runs it on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=arguments.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/arguments.sh"
evaluate Ascend "$@"
