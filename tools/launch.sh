#!/usr/bin/env bash
# Runs one of the Python tools in as many processes as asked for: tools/launch.sh SCRIPT PROCESSES [ARGUMENTS]
# PROCESSES is a number, or `visible`: one for every visible GPU, or one process where there is none.
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT as in MMSegmentation. PYTHON chooses the interpreter.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script=$1 processes=$2
shift 2

if [ "$processes" = visible ]; then
  processes=$( (nvidia-smi -L 2>/dev/null || true) | grep -c '^GPU' || true)
  if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then processes=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .); fi
  if [ "$processes" = 0 ]; then processes=1; fi
fi
case $processes in
  '' | *[!0-9]* | 0) echo "error: the number of processes must be a positive whole number, not '$processes'." >&2; exit 2 ;;
esac
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python
  if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$root/.venv/bin/python" ]; then PYTHON=$root/.venv/bin/python; fi
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

# A dry run describes that many processes and needs none of their GPUs.
for argument in "$@"; do
  if [ "$argument" = --dry-run ]; then
    WORLD_SIZE=$((processes * ${NNODES:-1})) exec "$PYTHON" "$root/tools/$script" "$@"
  fi
done
if [ "$processes" = 1 ] && [ "${NNODES:-1}" = 1 ]; then
  exec "$PYTHON" "$root/tools/$script" "$@"
fi
# Processes that annotate share files and nothing else.
launcher=(--launcher pytorch)
if [ "$script" = annotate.py ]; then launcher=(); fi
exec "$PYTHON" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
  --nproc_per_node="$processes" "$root/tools/$script" "$@" ${launcher[@]+"${launcher[@]}"}
