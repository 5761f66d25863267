#!/bin/sh
exec bash "$(dirname -- "$(readlink -f -- "$0")")/train_full_1p.sh" "$@"
