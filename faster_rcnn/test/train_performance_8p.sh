#!/bin/sh
exec bash "$(dirname -- "$(readlink -f -- "$0")")/train_faster_rcnn_performance_8p.sh" "$@"
