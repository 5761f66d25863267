#!/bin/sh
exec bash "$(dirname -- "$(readlink -f -- "$0")")/../scripts/train_performance_multinodes.sh" "$@"
