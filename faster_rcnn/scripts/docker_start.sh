#!/bin/sh
exec bash "$(dirname -- "$0")/../../docker/docker_start.sh" "$@"
