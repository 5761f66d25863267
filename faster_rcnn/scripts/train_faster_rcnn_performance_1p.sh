#!/bin/sh
exec bash "$(dirname -- "$0")/train_performance_1p.sh" "$@"
