#!/usr/bin/env bash
# Pretrains with token labels: tools/pretrain.sh [CONFIG] [GPUS] [options of tools/train.py]
# Without arguments: LV-ViT-S on every visible GPU, images in data/imagenet, labels in data/imagenet_labels.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config=$here/../configs/pretrain_lvvit_s.py
gpus=visible
if [ $# -gt 0 ] && [[ $1 != -* ]]; then config=$1; shift; fi
if [ $# -gt 0 ] && [[ $1 != -* ]]; then gpus=$1; shift; fi
exec "$here/launch.sh" train.py "$gpus" "$config" "$@"
