#!/bin/sh
exec bash "$(dirname -- "$(readlink -f -- "$0")")/../scripts/train_full_8p.sh" "$@"
