#!/usr/bin/env bash
# Same as faster_rcnn/scripts/run_infer_310.sh
# Infer on Ascend 310 with the C++ program, and score the result.
# usage: bash run_infer_310.sh MINDIR_PATH DATA_PATH [ANN_FILE] [IMAGE_WIDTH IMAGE_HEIGHT] [DEVICE_ID] [--key=value ...]
#   MINDIR_PATH      file written by export.py --file_format=MINDIR
#   DATA_PATH        folder of the images; without ANN_FILE, a COCO folder, whose val2017 is used
#   ANN_FILE         annotations of the images (default: those of the COCO folder)
#   IMAGE_WIDTH ...  input size of the exported network, if it differs from the configuration
#   DEVICE_ID        device number (default: 0)
#   --key=value      any key of the configuration, such as --config_path=FILE, or the program's --threads=N and --readers=N
# Writes to ./infer_result, or ./infer_result_2 and so on if it has results, and the scores to ./acc.log.
# MS_LITE_HOME is the folder of MindSpore Lite; BUILD_DIR=DIR builds the program there instead of in ascend310_infer/build.
# DRY_RUN=1 prints the command without running it; DEVICE_TARGET=CPU runs it on the CPU.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=cpp_infer.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/cpp_infer.sh"
infer_310 "$@"
