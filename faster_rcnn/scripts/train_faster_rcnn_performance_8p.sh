#!/bin/sh
exec bash "$(dirname -- "$(readlink -f -- "$0")")/train_performance_8p.sh" "$@"
