#!/bin/sh
exec bash "$(dirname -- "$0")/train_full_8p.sh" "$@"
