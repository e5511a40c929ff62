"""Ranges of settings by name, which the type hints of other projects do not give.

Settings of this project have theirs in the type hint, see `tokenlabel.argument_checks`. A range applies to a number
and to each number of a list; the hint covers None and everything else.
"""

import logging
from typing import Annotated, Any, Literal

import torch

from tokenlabel.argument_checks import Count, Natural, NonNegative, Positive, Range, Share

# The range of MMEngine's random seeds; NumPy takes less than 2 ** 32, and workers add their number to the seed.
SEEDS = Range(0, 2**31 - 1)
_COUNT, _NATURAL, _POSITIVE = Range(1), Range(0), Range(0, above=True)
_FROM_0_TO_1, _BELOW_1, _SHARE = Range(0, 1), Range(0, 1, below=True), Range(0, 1, above=True)

RANGES: dict[str, Range] = {
    # loaders, loops, hooks
    'batch_size': _COUNT,
    'num_workers': _NATURAL,
    'prefetch_factor': _COUNT,
    'timeout': _NATURAL,
    'num_batch_per_epoch': _COUNT,
    'max_iters': Range(1, 10_000_000),
    'max_epochs': Range(1, 100_000),
    'val_interval': _COUNT,
    'val_begin': _NATURAL,
    'max_refetch': _NATURAL,
    'window_size': _COUNT,
    'num_digits': _NATURAL,
    'opencv_num_threads': _NATURAL,
    'resource_limit': _COUNT,
    'base_batch_size': _COUNT,
    'seed': SEEDS,
    # optimizers and schedules
    'accumulative_counts': _COUNT,
    'lr': Range(0),
    'weight_decay': Range(0),
    'eps': Range(0),
    'betas': _BELOW_1,
    'momentum': _FROM_0_TO_1,
    'begin': _NATURAL,
    'end': _COUNT,
    'eta_min': Range(0),
    'power': _POSITIVE,
    'start_factor': _FROM_0_TO_1,
    'end_factor': _FROM_0_TO_1,
    'step_size': _COUNT,
    'milestones': _NATURAL,
    'begin_iter': _NATURAL,
    'begin_epoch': _NATURAL,
    # networks
    'img_size': _COUNT,
    'patch_size': _COUNT,
    'in_chans': _COUNT,
    'embed_dim': _COUNT,
    'embed_dims': _COUNT,
    'depth': _COUNT,
    'depths': _COUNT,
    'dims': _COUNT,
    'num_heads': _COUNT,
    'num_blocks': _COUNT,
    'stem_width': _COUNT,
    'mlp_ratio': _POSITIVE,
    'residual_divisor': _POSITIVE,
    'init_values': _POSITIVE,
    'reg_tokens': _NATURAL,
    'drop_rate': _BELOW_1,
    'drop_path_rate': _BELOW_1,
    'attn_drop_rate': _BELOW_1,
    'proj_drop_rate': _BELOW_1,
    'pos_drop_rate': _BELOW_1,
    'patch_drop_rate': _BELOW_1,
    'mlp_drop_rate': _BELOW_1,
    'dropout_ratio': _BELOW_1,
    'channels': _COUNT,
    'in_channels': _COUNT,
    'out_channels': _COUNT,
    'pool_scales': _COUNT,
    'num_convs': _NATURAL,
    'num_outs': _COUNT,
    'feature_strides': _COUNT,
    'loss_weight': Range(0),
    'class_weight': Range(0),
    'ignore_index': Range(),
    # images
    'prob': _FROM_0_TO_1,
    'crop_size': _COUNT,
    'cat_max_ratio': _SHARE,
    'ratio_range': _POSITIVE,
    'scale_factor': _POSITIVE,
    'size_divisor': _COUNT,
    'std': _POSITIVE,
}

# Hints that replace type hint and range in classes where these are wrong or too wide: (class, name) -> hint.
HINTS: dict[tuple[str, str], Any] = {
    ('DataLoader', 'batch_size'): Count | None,
    ('DataLoader', 'num_workers'): Natural,
    ('DataLoader', 'timeout'): NonNegative,
    ('LinearParamScheduler', 'start_factor'): Share,
    ('CheckpointHook', 'interval'): Literal[-1] | Count,
    ('CheckpointHook', 'max_keep_ckpts'): Literal[-1] | Count,
    ('CheckpointHook', 'save_begin'): Natural,
    ('CheckpointHook', 'rule'): Literal['greater', 'less'] | list[Literal['greater', 'less']] | None,
    ('LoggerHook', 'interval'): Count,
    ('LoggerHook', 'interval_exp_name'): Count,
    ('SegVisualizationHook', 'interval'): Count,
    ('AmpOptimWrapper', 'dtype'): Literal[
        'float16', 'bfloat16', 'float32', 'float64', torch.float16, torch.bfloat16, torch.float32
    ]
    | None,
    ('AmpOptimWrapper', 'loss_scale'): Literal['dynamic'] | Positive | dict | None,
    ('LogProcessor', 'window_size'): Count,
    ('LogProcessor', 'by_epoch'): bool,
    ('BaseDecodeHead', 'num_classes'): Count,
    ('CrossEntropyLoss', 'reduction'): Literal['none', 'mean', 'sum'],
    ('set_multi_processing', 'mp_start_method'): Literal['fork', 'spawn', 'forkserver'],
    ('set_randomness', 'seed'): Annotated[int, SEEDS] | None,
    ('Visualizer', 'vis_backends'): list | dict | None,
}

# Top-level keys that are not dicts.
TOP: dict[str, Any] = {
    'work_dir': str | None,
    'load_from': str | None,
    'initial_weights': str | None,
    'resume': bool,
    'launcher': Literal['none', 'pytorch', 'slurm', 'mpi'],
    'experiment_name': str | None,
    'log_level': Literal[tuple(logging.getLevelNamesMapping())] | int,
    'default_scope': str | None,
    'find_unused_parameters': bool,
    'sync_bn': Literal['torch', 'mmcv'] | None,
    'keep_global_batch': bool | None,
    'activation_checkpointing': list[str] | str | None,
    'efficient_conv_bn_eval': list[str] | str | None,
}

# Settings of dicts that are read key by key: name of the dict -> key -> hint.
READ: dict[str, dict[str, Any]] = {
    'auto_scale_lr': {'enable': bool, 'base_batch_size': Count},
    'env_cfg': {'cudnn_benchmark': bool, 'mp_cfg': dict, 'dist_cfg': dict, 'resource_limit': Count},
    'paramwise_cfg': {
        'custom_keys': dict,
        'bypass_duplicate': bool,
        'layer_decay': Share,
        'layer_decay_rate': Positive,
        'num_layers': Count,
        'decay_rate': Positive,
        'decay_type': str,
    },
    'clip_grad': {
        'type': Literal['norm', 'value'],
        'max_norm': Positive,
        'norm_type': float,
        'clip_value': Positive,
        'error_if_nonfinite': bool,
        'foreach': bool | None,
    },
    'test_cfg': {'windows_per_batch': Count | None, 'keep_logits': bool},
}
