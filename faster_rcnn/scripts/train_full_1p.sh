#!/usr/bin/env bash
# Train as detectron2_config_101.yaml says on one Ascend device, then score the weights.
# usage: bash train_full_1p.sh --data_path=DIR [--batch_size=N] [--pre_trained=FILE] [--key=value ...]
#   --data_path    folder with annotations/, train2017/ and val2017/
#   --batch_size   pictures per step over all devices (default: as in detectron2_config_101.yaml, for each device)
#   --pre_trained  weights of the backbone, or none (default: R-101.pkl beside the data set)
#   --key=value    any key of the configuration
# It takes eight times the iterations of eight devices.
# Writes to ./train_full_1p.
# DRY_RUN=1 prints what would be started; DEVICE_TARGET=CPU runs the same on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=detectron2.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/detectron2.sh"
RECIPE+=(SOLVER.MAX_ITER 90000 SOLVER.STEPS "(60000, 80000)")
train_full 1 "$@"
