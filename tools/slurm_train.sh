#!/usr/bin/env bash
# Trains a config under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8, or GPUS if those are fewer), CPUS_PER_TASK (8) and SRUN_ARGS as in MMSegmentation; PORT,
# else one by chance. One task per GPU, so signals of Slurm reach the processes that train.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2
  exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
partition=$1 job=$2
shift 2
for name in GPUS GPUS_PER_NODE CPUS_PER_TASK PORT; do
  if [ -n "${!name-}" ] && [[ ! ${!name} =~ ^[1-9][0-9]{0,8}$ ]]; then
    echo "error: $name is '${!name}', not a whole number from 1 on: correct it, or unset it." >&2
    exit 2
  fi
done
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
if [ $((gpus % per_node)) != 0 ]; then
  echo "error: GPUS=$gpus is no multiple of GPUS_PER_NODE=$per_node: every node has to run the same number." >&2
  exit 2
fi
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python
  if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$root/.venv/bin/python" ]; then PYTHON=$root/.venv/bin/python; fi
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export MASTER_PORT=${PORT:-$((20000 + RANDOM % 20000))}
# SRUN_ARGS holds several words
# shellcheck disable=SC2086
exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" \
  --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "$PYTHON" -u "$root/tools/train.py" "$@" --launcher slurm
