#!/usr/bin/env bash
# Train on several GPUs. LAUNCHER=mpirun starts them by mpirun, in place of msrun.
# usage: bash run_distribute_train_gpu.sh DEVICE_NUM EPOCH_SIZE LR DATASET [PRE_TRAINED] [PRE_TRAINED_EPOCH_SIZE]
#        [--key=value ...]
#   DEVICE_NUM              number of devices
#   EPOCH_SIZE              epochs
#   LR                      highest learning rate, for the whole batch; it falls as a cosine
#   DATASET                 coco, voc, yolo, labelme, coco_files or other, where --coco_root=, --voc_root= or the configuration says
#   PRE_TRAINED             checkpoint to start from; none or "": without one
#   PRE_TRAINED_EPOCH_SIZE  epochs that it was trained for; only the remaining ones run (default: 0)
#   --key=value             any key of the configuration, or --using_mode=refinedet_{vgg16,resnet101}_{320,512}
# Writes to ./LOG.
# DRY_RUN=1 prints what would be started; DEVICE_TARGET=CPU runs the same on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=arguments.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/arguments.sh"
distribute_train GPU "$@"
