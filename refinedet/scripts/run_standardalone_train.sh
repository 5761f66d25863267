#!/bin/sh
exec bash "$(dirname -- "$(readlink -f -- "$0")")/run_standalone_train_ascend.sh" "$@"
