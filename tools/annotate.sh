#!/usr/bin/env bash
# Annotates images with one process per GPU: tools/annotate.sh [GPUS] IMAGES STORE [options of tools/annotate.py]
# Without a number: every visible GPU. Run it on several machines at once, and they share what is left of the store.
set -euo pipefail
gpus=visible
if [ $# -gt 0 ] && [[ $1 =~ ^[0-9]+$ ]]; then gpus=$1; shift; fi
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" annotate.py "$gpus" "$@"
