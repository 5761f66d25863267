#!/usr/bin/env bash
# Infer with the C++ program, and score the result.
# usage: bash run_infer_cpp.sh MINDIR_PATH DATA_PATH ANNO_PATH DEVICE_TYPE [IMAGE_WIDTH IMAGE_HEIGHT] [KEEP_RATIO] [DEVICE_ID]
#        [--key=value ...]
#   MINDIR_PATH      what export.py --file_format=MINDIR wrote
#   DATA_PATH        folder of the images
#   ANNO_PATH        their annotations
#   DEVICE_TYPE      Ascend or CPU
#   IMAGE_WIDTH ...  size that the network was exported with, where it is not the configuration's
#   KEEP_RATIO       true or false, where it is not the configuration's
#   DEVICE_ID        number of the device (default: 0)
#   --key=value      any key of the configuration, such as --config_path=FILE; --threads=N and --readers=N of the program
# Writes to ./infer_result, or ./infer_result_2 and so on where that has results, and the figures to ./acc.log.
# MS_LITE_HOME is the folder of MindSpore Lite; BUILD_DIR=DIR builds the program there and not in ascend310_infer/build.
# DRY_RUN=1 prints what would be started.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=cpp_infer.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/cpp_infer.sh"
infer_cpp "$@"
