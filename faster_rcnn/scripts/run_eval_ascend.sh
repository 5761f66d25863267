#!/usr/bin/env bash
# Score a checkpoint on one Ascend device.
# usage: bash run_eval_ascend.sh VALIDATION_JSON_FILE CHECKPOINT_PATH BACKBONE COCO_ROOT [DEVICE_ID] [MINDRECORD_DIR]
#        [--key=value ...]
#   VALIDATION_JSON_FILE  annotations of the images
#   CHECKPOINT_PATH       weights of the detector
#   BACKBONE              resnet_v1.5_50, resnet_v1_101, resnet_v1_152, resnet_v1_50 or inception_resnet_v2
#   COCO_ROOT             folder with annotations/, train2017/ and val2017/
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
