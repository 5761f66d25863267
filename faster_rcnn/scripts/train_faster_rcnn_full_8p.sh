#!/bin/sh
exec bash "$(dirname -- "$(readlink -f -- "$0")")/train_full_8p.sh" "$@"
