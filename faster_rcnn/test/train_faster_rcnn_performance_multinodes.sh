#!/usr/bin/env bash
# Measure the training speed on several machines of eight Ascend devices each. Run it on every machine.
# usage: bash train_faster_rcnn_performance_multinodes.sh --data_path=DIR --batch_size=N --nnodes=N --node_rank=R
#        --local_addr=IP --master_addr=IP [--master_port=P] [--pre_trained=FILE] [--key=value ...]
#   --data_path    folder with annotations/, train2017/ and val2017/, or with a coco/ or coco2017/ that holds them
#   --batch_size   images per step over all devices of all machines
#   --nnodes       number of machines
#   --node_rank    rank of this machine, from 0
#   --local_addr   address of this machine, in the network of --master_addr
#   --master_addr  address of machine 0
#   --master_port  port on machine 0 (default: 8118)
#   --pre_trained  weights of the backbone, or none (default: R-101.pkl beside the data set)
#   --perf_steps   steps (default: 400)
#   --key=value    any key of the configuration
# DEVICE_NUM in the environment: number of devices per machine (8).
# Writes to ./train_faster_rcnn_performance_multinodes.
# DRY_RUN=1 prints the command without running it; DEVICE_TARGET=CPU runs it on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=../scripts/detectron2.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../scripts/detectron2.sh"
train_performance_nodes "${DEVICE_NUM:-8}" "$@"
