#!/bin/sh
exec bash "$(dirname -- "$0")/run_eval_ascend.sh" "$@"
