#!/usr/bin/env bash
# Measure the training speed on one Ascend device: images per second, median and 90th percentile of the step time.
# usage: bash train_faster_rcnn_performance_1p.sh --data_path=DIR [--batch_size=N] [--pre_trained=FILE] [--key=value ...]
#   --data_path    folder with annotations/, train2017/ and val2017/, or with a coco/ or coco2017/ that holds them
#   --batch_size   images per step over all devices (default: detectron2_config_101.yaml's batch size per device)
#   --pre_trained  weights of the backbone, or none (default: R-101.pkl beside the data set)
#   --perf_steps   steps (default: 400)
#   --key=value    any key of the configuration
# Writes to ./train_faster_rcnn_performance_1p.
# DRY_RUN=1 prints the command without running it; DEVICE_TARGET=CPU runs it on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=../scripts/detectron2.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../scripts/detectron2.sh"
train_performance 1 "$@"
