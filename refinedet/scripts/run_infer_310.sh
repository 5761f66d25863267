#!/usr/bin/env bash
# Same as faster_rcnn/scripts/run_infer_310.sh
# Infer on Ascend 310 with the C++ program, and score the result.
# usage: bash run_infer_310.sh MINDIR_PATH DATA_PATH [ANN_FILE] [IMAGE_WIDTH IMAGE_HEIGHT] [DEVICE_ID] [--key=value ...]
#   MINDIR_PATH      what export.py --file_format=MINDIR wrote
#   DATA_PATH        folder of the images; without ANN_FILE a COCO folder, whose val2017 is taken
#   ANN_FILE         their annotations (default: those of the COCO folder)
#   IMAGE_WIDTH ...  size that the network was exported with, where it is not the configuration's
#   DEVICE_ID        number of the device (default: 0)
#   --key=value      any key of the configuration, such as --config_path=FILE; --threads=N and --readers=N of the program
# Writes to ./infer_result, or ./infer_result_2 and so on where that has results, and the figures to ./acc.log.
# MS_LITE_HOME is the folder of MindSpore Lite; BUILD_DIR=DIR builds the program there and not in ascend310_infer/build.
# DRY_RUN=1 prints what would be started; DEVICE_TARGET=CPU runs the same on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=cpp_infer.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/cpp_infer.sh"
infer_310 "$@"
