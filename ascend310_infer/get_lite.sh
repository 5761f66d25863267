#!/usr/bin/env bash
# Unpack MindSpore Lite 2.0.0 for the CPU from its Python wheel: headers and libraries, which do not need Python.
# usage: bash get_lite.sh FOLDER
# Then `export MS_LITE_HOME=FOLDER`. On Ascend, use the MindSpore Lite package for your device instead.
set -euo pipefail
[[ $# -eq 1 && $1 != -* ]] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
[[ ! -e $1 ]] || { printf 'get_lite.sh: error: %s exists already\n' "$1" >&2; exit 2; }
PYTHON=${PYTHON:-python3}
mkdir -p -- "$(dirname -- "$1")"
scratch=$(mktemp -d "$(dirname -- "$1")/.lite-XXXXXX")
trap 'rm -rf -- "$scratch"' EXIT
printf 'mindspore-lite==2.0.0 --hash=sha256:%s\n' 199cd0605cc985b88eddb273db9dfe9000a585ba10ca2292b6b36ebfff07b3ec >"$scratch/wanted.txt"
"$PYTHON" -m pip download --disable-pip-version-check --quiet --no-deps --require-hashes --only-binary=:all: \
  --platform manylinux1_x86_64 --python-version 3.7 --implementation cp --abi cp37m --dest "$scratch" -r "$scratch/wanted.txt"
"$PYTHON" - "$scratch" <<'EOF'
import pathlib
import sys
import zipfile

scratch = pathlib.Path(sys.argv[1])
(wheel,) = scratch.glob("*.whl")
# The libraries that inference on the CPU loads.
needed = ("libdnnl", "libmindspore", "libmslite_converter_plugin", "libmsplugin-ge-litert", "libopencv_", "libruntime_convert_plugin")
with zipfile.ZipFile(wheel) as content:
    for name in content.namelist():
        _, _, inner = name.partition("mindspore_lite/")
        if inner.startswith("include/") or (inner.startswith("lib/") and inner[4:].startswith(needed)):
            target = scratch / "lite" / "runtime" / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read(name))
(scratch / "lite/runtime/lib/libmindspore-lite.so").symlink_to("libmindspore-extendrt_python.so")
EOF
mv -- "$scratch/lite" "$1"
