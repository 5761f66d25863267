#!/bin/sh
exec bash "$(dirname -- "$(readlink -f -- "$0")")/run_eval_ascend.sh" "$@"
