#!/bin/sh
exec bash "$(dirname -- "$0")/run_standalone_train_ascend.sh" "$@"
