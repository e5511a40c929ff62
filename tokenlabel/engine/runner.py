"""MMEngine's Runner, made to work on CPUs and to write and read checkpoints safely."""

import copy
import os
from pathlib import Path

import mmengine.runner
import numpy as np
import torch
from mmengine.dist import is_distributed
from mmengine.logging import HistoryBuffer
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm, is_model_wrapper, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIMIZERS, RUNNERS
from mmengine.runner import CheckpointLoader

from tokenlabel.engine.global_batch import checkpoints_between_steps, kept_accumulation
from tokenlabel.engine.initial_weights import load_initial_weights
from tokenlabel.engine.optim_wrapper import FUSED
from tokenlabel.engine.restarts import go_on_after_restart
from tokenlabel.engine.sharding import is_sharded, shard, shard_optimizer, take_part_in_saving, whole_state_dicts
from tokenlabel.errors import UserError
from tokenlabel.models.checkpoint import read_checkpoint

# What the configs' OptimWrappers become.
SKIPPING = {'OptimWrapper': 'SkippingOptimWrapper', 'AmpOptimWrapper': 'SkippingAmpOptimWrapper'}


@RUNNERS.register_module(name='TokenLabelRunner')
class Runner(mmengine.runner.Runner):
    """MMEngine's Runner with a few differences.

    Without a GPU it starts several processes on gloo, without SyncBatchNorm and mixed precision, saying so.
    Optimizer steps that are not finite are skipped, see `tokenlabel.engine.optim_wrapper`.
    Checkpoints are written beside their place and renamed, read without executing what is in them, and have to fit the
    model in every weight. `initial_weights` are where training starts, at any resolution and with any classes, and
    `keep_global_batch=True` keeps the recipe's batch and learning rate on any number of processes.
    """

    def setup_env(self, env_cfg: dict) -> None:
        """Starts the process group on gloo where there is no GPU; MMEngine's launchers want one."""
        if self.distributed and not is_distributed() and not torch.cuda.is_available():
            if self._launcher == 'slurm':
                names = {'RANK': 'PROCID', 'WORLD_SIZE': 'NTASKS', 'LOCAL_RANK': 'LOCALID'}
                os.environ |= {name: os.environ[f'SLURM_{theirs}'] for name, theirs in names.items()}
            torch.distributed.init_process_group('gloo')
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: torch.nn.Module) -> torch.nn.Module:
        """Distributed data parallel also on CPUs, where SyncBatchNorm does not exist; `sharding=fsdp` shards instead.

        Raises:
            UserError: as `shard`; a `model_wrapper_cfg` beside it.
        """
        if self.distributed and self.cfg.get('sharding'):
            if model_wrapper_cfg:
                raise UserError('The config sets both sharding and model_wrapper_cfg: leave one of them out.')
            if self.cfg.get('sync_bn'):
                model = convert_sync_batchnorm(model, self.cfg.sync_bn)
            return shard(model, self.cfg.sharding)
        if not self.distributed or torch.cuda.is_available() or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        if any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules()):
            self.logger.warning('SyncBatchNorm needs GPUs: using BatchNorm, each process with its own statistics.')
            model = revert_sync_batchnorm(model)
        options = {'broadcast_buffers': False, 'find_unused_parameters': self.cfg.get('find_unused_parameters', False)}
        options |= {key: value for key, value in (model_wrapper_cfg or {}).items() if key != 'type'}
        return MMDistributedDataParallel(module=model, **(options | {'device_ids': None}))

    def _init_model_weights(self) -> None:
        """As MMEngine, unless the weights are sharded: these were sent to all processes before."""
        if not is_sharded(self.model):
            super()._init_model_weights()

    def build_optim_wrapper(self, optim_wrapper: dict | OptimWrapper) -> OptimWrapper:
        """Mixed precision where there is a GPU, float32 elsewhere; steps that are not finite are skipped."""
        mixed = isinstance(optim_wrapper, dict) and optim_wrapper.get('type') == 'AmpOptimWrapper'
        if mixed and not torch.cuda.is_available():
            self.logger.warning('No GPU: training in float32 instead of mixed precision.')
            amp_only = ('type', 'dtype', 'loss_scale', 'use_fsdp')
            optim_wrapper = {key: value for key, value in optim_wrapper.items() if key not in amp_only}
        name = optim_wrapper.get('optimizer', {}).get('type') if isinstance(optim_wrapper, dict) else None
        if isinstance(name, str) and OPTIMIZERS.get(name) is None:
            raise UserError(f'The config names an unknown optimizer `{name}` in optim_wrapper.optimizer.type.')
        counts = kept_accumulation(self.cfg, self.world_size)
        if counts is not None and isinstance(optim_wrapper, dict):
            optim_wrapper = {**optim_wrapper, 'accumulative_counts': counts}
        if isinstance(optim_wrapper, dict):
            optim_wrapper = copy.deepcopy(optim_wrapper)
            kind = optim_wrapper.get('type', 'OptimWrapper')
            optim_wrapper['type'] = SKIPPING.get(kind, kind)
            if name in FUSED:
                optim_wrapper['optimizer'].setdefault('fused', True)
        built = super().build_optim_wrapper(optim_wrapper)
        if isinstance(optim_wrapper, dict) and is_sharded(self.model):
            shard_optimizer(built.optimizer)
        return built

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Lets the learning rate follow the batch, unless the batch is kept."""
        counts = kept_accumulation(self.cfg, self.world_size)
        if counts is None:
            super().scale_lr(optim_wrapper, auto_scale_lr)
        else:
            self.logger.info(f'The batch of the recipe is kept: {counts} iterations make a step.')

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """Registers hooks; checkpoints fall between steps."""
        counts = kept_accumulation(self.cfg, self.world_size)
        if counts is not None:
            default_hooks = checkpoints_between_steps(default_hooks, counts)
        super().register_hooks(default_hooks, custom_hooks)

    def train(self) -> torch.nn.Module:
        """As MMEngine; processes that torchrun has started anew go on from the newest checkpoint."""
        go_on_after_restart(self)
        return super().train()

    def load_or_resume(self) -> None:
        """As MMEngine; a run that neither resumes nor loads starts from `initial_weights` where the config has them.

        Raises:
            UserError: as `load_initial_weights`; `load_from` names other weights to start from.
        """
        path = self.cfg.get('initial_weights')
        if path and self._load_from and not self._resume:
            raise UserError(f'load_from and initial_weights ({path}) both say where to start from: set one of them.')
        super().load_or_resume()
        if path and not self._has_loaded:
            file = load_initial_weights(self.model, path)
            self._has_loaded = True
            self.logger.info(f'Training starts from the weights of {file}.')

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        """Writes under another name first: a checkpoint of its final name is whole."""
        with whole_state_dicts():
            if self.rank == 0:
                part = f'{filename}.part'
                super().save_checkpoint(out_dir, part, *args, **kwargs)
                os.replace(Path(out_dir, part), Path(out_dir, filename))
            elif is_sharded(self.model):
                take_part_in_saving(self, kwargs.get('save_optimizer', True))

    def load_checkpoint(self, filename: str, map_location='cpu', strict: bool = True, **kwargs) -> dict:
        """As MMEngine, but a weight that is missing, left over or of another shape is an error.

        Raises:
            UserError: the file is missing, truncated, carries code, or belongs to another model.
        """
        try:
            return super().load_checkpoint(filename, map_location, strict, **kwargs)
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise UserError(
                f'Checkpoint {filename} does not fit this model ({" ".join(lines)[:300]}): use the config it was '
                'trained with.'
            ) from error


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location=None) -> dict:
    """What MMEngine reads checkpoint files with: `read_checkpoint`, with the log history that resuming needs.

    Raises:
        UserError: the file is missing, truncated or carries code.
    """
    return read_checkpoint(filename, map_location, rebuild=log_history_globals())


def log_history_globals() -> list:
    """What MMEngine's log history refers to when pickled: its class, that class's own methods, and NumPy numbers."""
    scalars = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    arrays = [np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0], np.ndarray, np.dtype]
    dtypes = [type(np.dtype(kind)) for kind in scalars]
    return [HistoryBuffer, (history_method, 'builtins.getattr'), *arrays, *dtypes]


def history_method(owner: type, name: str):
    """`getattr` for the statistics of a log history and nothing else.

    Raises:
        UserError: anything else was asked for.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise UserError(f'it asks for {name} of {owner}')
    return getattr(owner, name)
