#!/usr/bin/env bash
# Train with detectron2_config_101.yaml on one Ascend device, then evaluate the weights.
# usage: bash train_faster_rcnn_full_1p.sh --data_path=DIR [--batch_size=N] [--pre_trained=FILE] [--key=value ...]
#   --data_path    folder with annotations/, train2017/ and val2017/, or with a coco/ or coco2017/ that holds them
#   --batch_size   images per step over all devices (default: detectron2_config_101.yaml's batch size per device)
#   --pre_trained  weights of the backbone, or none (default: R-101.pkl beside the data set)
#   --key=value    any key of the configuration
# It trains on as many images as eight devices would: eight times the iterations at 8 images per iteration.
# Writes to ./train_faster_rcnn_full_1p.
# DRY_RUN=1 prints the command without running it; DEVICE_TARGET=CPU runs it on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=../scripts/detectron2.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../scripts/detectron2.sh"
train_full 1 "$@"
