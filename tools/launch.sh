#!/usr/bin/env bash
# Runs one of the Python tools in as many processes as asked for: tools/launch.sh SCRIPT PROCESSES [ARGUMENTS]
# PROCESSES is a number, or `visible`: one for every visible GPU, or one process where there is none.
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT as in MMSegmentation. PYTHON chooses the interpreter.
# MAX_RESTARTS=n starts all processes anew, up to n times, when one is lost; training resumes from its last checkpoint.
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
for name in NNODES NODE_RANK PORT MAX_RESTARTS; do
  if [ -n "${!name-}" ] && [[ ! ${!name} =~ ^[0-9]{1,9}$ ]]; then
    echo "error: $name is '${!name}', not a whole number: correct it, or unset it." >&2
    exit 2
  fi
done
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
nodes=${NNODES:-1} restarts=${MAX_RESTARTS:-0} master=${MASTER_ADDR:-127.0.0.1} port=${PORT:-29500}
if [ "$processes" = 1 ] && [ "$nodes" = 1 ] && [ "$restarts" = 0 ]; then
  exec "$PYTHON" "$root/tools/$script" "$@"
fi
# Processes that annotate share files and nothing else.
launcher=(--launcher pytorch)
if [ "$script" = annotate.py ]; then launcher=(); fi
# Only machines that meet through c10d learn that another one lost a process.
meeting=(--node_rank="${NODE_RANK:-0}" --master_addr="$master" --master_port="$port")
if [ "$restarts" != 0 ]; then
  meeting=(--max_restarts="$restarts" --rdzv_backend=c10d --rdzv_endpoint="$master:$port" --rdzv_id="$port")
  # Of one store for all starts, processes would read the addresses of those that were lost.
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 LAUNCHED_AT=${LAUNCHED_AT:-$(date +%s)}
fi
exec "$PYTHON" "$root/tools/torchrun.py" --nnodes="$nodes" --nproc_per_node="$processes" "${meeting[@]}" \
  "$root/tools/$script" "$@" ${launcher[@]+"${launcher[@]}"}
