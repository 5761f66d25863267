#!/usr/bin/env bash
# Score a checkpoint on one Ascend device.
# usage: bash run_eval.sh DATASET CHECKPOINT_PATH [DEVICE_ID] [--key=value ...]
#   DATASET          coco, voc, yolo, labelme, coco_files or other; located by --coco_root=, --voc_root= or the configuration
#   CHECKPOINT_PATH  weights of the detector
#   DEVICE_ID        device number (default: 0)
#   --key=value      any key of the configuration, or --using_mode=refinedet_{vgg16,resnet101}_{320,512}
# Writes to ./eval, or ./eval_2 and so on if it has results.
# DRY_RUN=1 prints the command without running it; DEVICE_TARGET=CPU runs it on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=arguments.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/arguments.sh"
evaluate Ascend "$@"
