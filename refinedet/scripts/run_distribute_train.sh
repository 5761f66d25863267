#!/bin/sh
exec bash "$(dirname -- "$(readlink -f -- "$0")")/run_distribute_train_ascend.sh" "$@"
