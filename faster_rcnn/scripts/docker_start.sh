#!/bin/sh
exec bash "$(dirname -- "$(readlink -f -- "$0")")/../../docker/docker_start.sh" "$@"
