#!/usr/bin/env bash
# Train as detectron2_config_101.yaml says on one Ascend device, then score the weights.
# usage: bash train_full_1p.sh --data_path=DIR [--batch_size=N] [--pre_trained=FILE] [--key=value ...]
#   --data_path    folder with annotations/, train2017/ and val2017/, or with coco/ or coco2017/ that has them
#   --batch_size   pictures per step over all devices (default: as in detectron2_config_101.yaml, for each device)
#   --pre_trained  weights of the backbone, or none (default: R-101.pkl beside the data set)
#   --key=value    any key of the configuration
# It sees as many pictures as eight devices would: with 8 an iteration it takes eight times the iterations.
# Writes to ./train_full_1p.
# DRY_RUN=1 prints what would be started; DEVICE_TARGET=CPU runs the same on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=detectron2.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/detectron2.sh"
train_full 1 "$@"
