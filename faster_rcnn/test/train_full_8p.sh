#!/bin/sh
exec bash "$(dirname -- "$(readlink -f -- "$0")")/train_faster_rcnn_full_8p.sh" "$@"
