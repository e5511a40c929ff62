#!/usr/bin/env bash
# Annotates images with one process per GPU: tools/annotate.sh [GPUS] IMAGES STORE [options of tools/annotate.py]
# Without a number: every visible GPU. Run it on several machines at once, and they share what is left of the store.
set -euo pipefail
gpus=
if [ $# -gt 0 ] && [[ $1 =~ ^[0-9]+$ ]]; then gpus=$1; shift; fi
if [ -z "$gpus" ]; then
  gpus=$( (nvidia-smi -L 2>/dev/null || true) | grep -c '^GPU' || true)
  if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then gpus=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .); fi
  if [ "$gpus" = 0 ]; then gpus=1; fi
fi
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" annotate.py "$gpus" "$@"
