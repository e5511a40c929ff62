#!/usr/bin/env bash
# Evaluates a checkpoint: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
set -euo pipefail
if [ $# -lt 3 ]; then echo "usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]" >&2; exit 2; fi
config=$1 checkpoint=$2 gpus=$3
shift 3
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" test.py "$gpus" "$config" "$checkpoint" "$@"
