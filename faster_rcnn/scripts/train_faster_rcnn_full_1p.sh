#!/bin/sh
exec bash "$(dirname -- "$0")/train_full_1p.sh" "$@"
