#!/usr/bin/env bash
# Train in several processes on the CPU.
# usage: bash run_distribute_train_cpu.sh DEVICE_NUM EPOCH_SIZE LR DATASET [PRE_TRAINED] [PRE_TRAINED_EPOCH_SIZE]
#        [--key=value ...]
#   DEVICE_NUM              number of processes
#   EPOCH_SIZE              number of epochs
#   LR                      peak learning rate for the whole batch, with cosine decay
#   DATASET                 coco, voc, yolo, labelme, coco_files or other; located by --coco_root=, --voc_root= or the configuration
#   PRE_TRAINED             checkpoint to start from, or none (or "")
#   PRE_TRAINED_EPOCH_SIZE  epochs that PRE_TRAINED was trained for, subtracted from EPOCH_SIZE (default: 0)
#   --key=value             any key of the configuration, or --using_mode=refinedet_{vgg16,resnet101}_{320,512}
# Writes to ./LOG. DRY_RUN=1 prints the command without running it.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=arguments.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/arguments.sh"
distribute_train CPU "$@"
