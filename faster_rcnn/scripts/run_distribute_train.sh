#!/bin/sh
exec bash "$(dirname -- "$0")/run_distribute_train_ascend.sh" "$@"
