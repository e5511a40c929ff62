#!/usr/bin/env bash
# Trains a config on one machine or many: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
set -euo pipefail
if [ $# -lt 2 ]; then echo "usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]" >&2; exit 2; fi
config=$1 gpus=$2
shift 2
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" train.py "$gpus" "$config" "$@"
