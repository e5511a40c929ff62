"""MMEngine's Runner, made to work on CPUs and to write and read checkpoints safely."""

import copy
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import mmengine.runner
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_rank, is_distributed, master_only
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel, is_model_wrapper, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIMIZERS, RUNNERS
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop
from torch.utils.data import DataLoader, Dataset

from tokenlabel.checkpoints.weights import refuse_other_kinds
from tokenlabel.engine.classes import resolve_classes
from tokenlabel.engine.config.custom_keys import warning_of_unmatched
from tokenlabel.engine.config.substitution import substitute
from tokenlabel.engine.distributed.idle_threads import wait_for_idle_threads
from tokenlabel.engine.hooks.non_finite_steps import RefuseNonFiniteWeights
from tokenlabel.engine.initial_weights import load_initial_weights
from tokenlabel.engine.length import with_ends
from tokenlabel.engine.loops import end_workers
from tokenlabel.engine.optim.global_batch import (
    checkpoints_between_steps,
    iterations_per_step,
    kept_accumulation,
    validation_between_steps,
)
from tokenlabel.engine.resuming.checkpoint_files import newest_checkpoint
from tokenlabel.engine.resuming.checkpoint_hook import FinalValidationHook, checkpoint_folder
from tokenlabel.engine.resuming.completeness import RefuseIncomplete
from tokenlabel.engine.resuming.optimizer_state import OptimizerStateHook
from tokenlabel.engine.resuming.preemption import StopOnSignal, start_worker
from tokenlabel.engine.resuming.random_states import RandomStateHook
from tokenlabel.engine.resuming.restarts import resume_after_restart
from tokenlabel.engine.resuming.restore import described, restore
from tokenlabel.engine.resuming.schedules import rates_at
from tokenlabel.engine.resuming.seeded_samples import check_ends, with_seeded_samples
from tokenlabel.engine.resuming.sole_run import sole_run
from tokenlabel.engine.run_folder import folder_errors, raise_in_log_files
from tokenlabel.errors import UserError
from tokenlabel.files.writing import disk_errors, sync_folder, write_atomically


@RUNNERS.register_module(name='TokenLabelRunner')
class Runner(mmengine.runner.Runner):
    """MMEngine's Runner with a few differences.

    Without a GPU it starts several processes on gloo, without SyncBatchNorm and mixed precision, saying so.
    Optimizer steps that are not finite are skipped, see `tokenlabel.engine.optim.optim_wrapper`.
    A run that ended anywhere, resumed from its last checkpoint, takes the steps that it would have taken: the next
    unseen sample, the same augmentation, the same random numbers. Where the config has changed, the config counts, see
    `restore`. At Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 it writes a checkpoint and ends, see `StopOnSignal`. One run
    trains in a work dir at a time.
    Checkpoints are written beside their place and renamed, read without executing what is in them, and have to fit the
    model in every weight. `initial_weights` are where training starts, at any resolution and with any classes, and
    `keep_global_batch=True` keeps the recipe's batch and learning rate on any number of processes.
    """

    _hooks_met = False  # whether `before_run` has been called, and `after_run` not yet
    resumed_from: Path | None = None  # the checkpoint that training resumed from

    def __init__(self, model: torch.nn.Module | dict, work_dir: str, *args, **kwargs) -> None:
        """As MMEngine.

        Raises:
            UserError: the work dir cannot be written to.
        """
        with folder_errors(work_dir):
            super().__init__(model, work_dir, *args, **kwargs)

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'Runner':
        """As MMEngine; types of MMEngine that ours extend are replaced, see `substitute`."""
        replaced = substitute(cfg)
        runner = super().from_cfg(cfg)
        if replaced:
            runner.logger.info(f'In the place of types that the config names run ours: {", ".join(replaced)}.')
        return runner

    def setup_env(self, env_cfg: dict) -> None:
        """Starts the process group on gloo where there is no GPU; MMEngine's launchers want one."""
        if self.distributed and not is_distributed() and not torch.cuda.is_available():
            if self._launcher == 'slurm':
                names = {'RANK': 'PROCID', 'WORLD_SIZE': 'NTASKS', 'LOCAL_RANK': 'LOCALID'}
                os.environ |= {name: os.environ[f'SLURM_{theirs}'] for name, theirs in names.items()}
            torch.distributed.init_process_group('gloo')
        super().setup_env(env_cfg)
        if self.distributed:
            wait_for_idle_threads()

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """As MMEngine; a line that cannot be written to the log file is an error."""
        logger = super().build_logger(*args, **kwargs)
        raise_in_log_files(logger)
        return logger

    def dump_config(self) -> None:
        """Nothing yet: `train` writes the config to the work dir, once no other run is at work there."""

    def wrap_model(self, model_wrapper_cfg: dict | None, model: torch.nn.Module) -> torch.nn.Module:
        """DDP also on CPUs, where SyncBatchNorm does not exist."""
        if not self.distributed or torch.cuda.is_available() or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        if any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules()):
            self.logger.warning('SyncBatchNorm needs GPUs: using BatchNorm, each process with its own statistics.')
            model = revert_sync_batchnorm(model)
        options = {'broadcast_buffers': False, 'find_unused_parameters': self.cfg.get('find_unused_parameters', False)}
        options |= {key: value for key, value in (model_wrapper_cfg or {}).items() if key != 'type'}
        return MMDistributedDataParallel(module=model, **(options | {'device_ids': None}))

    def build_optim_wrapper(self, optim_wrapper: dict | OptimWrapper) -> OptimWrapper:
        """Mixed precision where there is a GPU, float32 elsewhere; steps that are not finite are skipped."""
        if not isinstance(optim_wrapper, dict):
            return super().build_optim_wrapper(optim_wrapper)
        optim_wrapper = copy.deepcopy(optim_wrapper)
        if optim_wrapper.get('type') == 'SkippingAmpOptimWrapper' and not torch.cuda.is_available():
            self.logger.warning('No GPU: training in float32 instead of mixed precision.')
            optim_wrapper['type'] = 'SkippingOptimWrapper'
            for of_mixed_precision in ('dtype', 'loss_scale', 'use_fsdp'):
                optim_wrapper.pop(of_mixed_precision, None)
        name = optim_wrapper.get('optimizer', {}).get('type')
        if isinstance(name, str) and OPTIMIZERS.get(name) is None:
            raise UserError(f'The config names an unknown optimizer `{name}` in optim_wrapper.optimizer.type.')
        counts = kept_accumulation(self.cfg, self.world_size)
        if counts is not None:
            optim_wrapper['accumulative_counts'] = counts
        if warning := warning_of_unmatched(getattr(self.model, 'module', self.model), optim_wrapper):
            self.logger.warning(warning)
        return super().build_optim_wrapper(optim_wrapper)

    def build_param_scheduler(self, scheduler: dict | list) -> list | dict:
        """As MMEngine; schedules without `end` last as long as the training.

        Raises:
            UserError: a schedule cannot be, such as one that ends before it begins.
        """
        scheduler, notes = with_ends(scheduler, {**self.cfg.train_cfg, 'max_iters': self.max_iters})
        for note in notes:
            self.logger.warning(note)
        try:
            built = super().build_param_scheduler(scheduler)
        except ValueError as error:
            raise UserError(f'A schedule of the config cannot be ({error}): correct its param_scheduler.') from error
        self._warn_of_no_rate(built)
        return built

    def _warn_of_no_rate(self, schedulers: list | dict) -> None:
        """Says that a training continues after its schedules have ended at a learning rate of 0."""
        rated = [one for one in schedulers if one.param_name == 'lr'] if isinstance(schedulers, list) else []
        if not rated or any(one.by_epoch for one in rated):
            return
        end = max(one.end for one in rated)
        above_0 = any(getattr(one, 'eta_min', None) for one in rated if one.end == end)
        if end < self.max_iters and not above_0 and not any(rates_at(rated, end)):
            self.logger.warning(
                f'From iteration {end} to the last, {self.max_iters}, the learning rate is 0 and nothing is learned: '
                'lengthen the schedules as well (param_scheduler.N.end), or train for fewer iterations.'
            )

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Lets the learning rate follow the batch, unless the batch is kept."""
        counts = kept_accumulation(self.cfg, self.world_size)
        if counts is None:
            super().scale_lr(optim_wrapper, auto_scale_lr)
        else:
            self.logger.info(f'The batch of the recipe is kept: {counts} iterations make a step.')

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """Registers hooks, with those of exact resuming; checkpoints fall between steps."""
        counts = iterations_per_step(self.cfg, self.world_size)
        super().register_hooks(checkpoints_between_steps(default_hooks, counts), custom_hooks)
        self._stop_on_signal = StopOnSignal()
        for hook in (
            OptimizerStateHook(),  # before the states are compared with this run's parameters
            RefuseIncomplete(),
            RandomStateHook(),
            FinalValidationHook(),
            self._stop_on_signal,
        ):
            self.register_hook(hook)
        self.register_hook(RefuseNonFiniteWeights())

    def call_hook(self, fn_name: str, **kwargs) -> None:
        """As MMEngine; `before_run` is called once a run, and weights of any file are under `state_dict`."""
        if fn_name == 'before_run':
            if self._hooks_met:
                return
            self._hooks_met = True
        if fn_name == 'after_load_checkpoint' and 'state_dict' not in kwargs['checkpoint']:
            kwargs['checkpoint'] = {'state_dict': kwargs['checkpoint']}
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'after_run':
            self._hooks_met = False

    def train(self) -> torch.nn.Module:
        """Trains, listening to signals; returns the trained model.

        Processes that torchrun has started anew resume from the newest checkpoint.

        Raises:
            SystemExit: a signal has stopped the run, see `StopOnSignal`.
            UserError: another run is at work in the work dir, or it cannot be written to.
        """
        with folder_errors(self.work_dir), sole_run(self.work_dir):
            self._write_config()
            resume_after_restart(self)
            try:
                with self._stop_on_signal.listening():
                    return super().train()
            finally:
                end_workers(self._train_loop)
                end_workers(self._val_loop)

    def val(self) -> dict:
        """As MMEngine, and ends the loader's workers."""
        try:
            return super().val()
        finally:
            end_workers(self._val_loop)

    def test(self) -> dict:
        """As MMEngine, and ends the loader's workers."""
        try:
            return super().test()
        finally:
            end_workers(self._test_loop)

    @master_only
    def _write_config(self) -> None:
        """Writes the config to the work dir, as MMEngine but as a new file: links to the old one keep what it said."""
        name = Path(self.cfg.filename).name if self.cfg.filename else f'{self.timestamp}.py'
        write_atomically(Path(self.work_dir, name), self.cfg.dump())

    def build_train_loop(self, loop: dict | BaseLoop) -> BaseLoop:
        """Builds the loop; validation, which may write checkpoints, falls between steps.

        Raises:
            UserError: as `check_ends`.
        """
        loop = super().build_train_loop(loop)
        if not isinstance(loop, IterBasedTrainLoop):
            check_ends(loop.dataloader, 'train')
        validation_between_steps(loop, iterations_per_step(self.cfg, self.world_size))
        return loop

    def build_val_loop(self, loop: dict | BaseLoop) -> BaseLoop:
        """Builds the loop, whose metrics learn where the images lie.

        Raises:
            UserError: as `check_ends`.
        """
        loop = super().build_val_loop(loop)
        check_ends(loop.dataloader, 'val')
        return _name_images(loop)

    def build_test_loop(self, loop: dict | BaseLoop) -> BaseLoop:
        """As `build_val_loop`."""
        loop = super().build_test_loop(loop)
        check_ends(loop.dataloader, 'test')
        return _name_images(loop)

    @staticmethod
    def build_dataloader(
        dataloader: dict | DataLoader, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Builds a loader whose samples depend on the seed and their place in the order, and on nothing else."""
        if isinstance(dataloader, dict):
            dataloader = with_seeded_samples(dataloader, (seed or 0) - get_rank() * diff_rank_seed)
        loader = mmengine.runner.Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        # so that starting workers costs training no random number
        loader.generator = torch.Generator().manual_seed(seed or 0)
        loader.worker_init_fn = partial(start_worker, loader.worker_init_fn)
        return loader

    def load_or_resume(self) -> None:
        """As MMEngine; a run that neither resumes nor loads starts from `initial_weights` where the config has them.

        Without a checkpoint being named, it resumes from `newest_checkpoint`; where there is none, it starts anew.
        Here the classes are resolved: those of the training images before a checkpoint is compared with them, those of
        images to evaluate on once the model knows its own.

        Raises:
            UserError: as `load_initial_weights`, `newest_checkpoint` and `resolve_classes`; `load_from` names other
                weights to start from.
        """
        resolve_classes(self.model, training=_dataset_of(self._train_loop)).apply()
        path = self.cfg.get('initial_weights')
        if self._resume and not self._load_from:
            newest = newest_checkpoint(self.work_dir, checkpoint_folder(self))
            self._resume, self._load_from = newest is not None, newest and str(newest)
            if newest is None:
                self.logger.warning(f'There is no checkpoint in {self.work_dir} to resume from: training starts anew.')
        if path and self._load_from and not self._resume:
            raise UserError(f'load_from and initial_weights ({path}) both say where to start from: set one of them.')
        super().load_or_resume()
        if path and not self._has_loaded:
            file = load_initial_weights(self.model, path)
            self._has_loaded = True
            self.logger.info(f'Training starts from the weights of {file}.')
        for loop in (self._val_loop, self._test_loop):
            resolve_classes(self.model, evaluation=_dataset_of(loop)).apply()

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        """Writes under another name first: a checkpoint of its final name is whole, and on disk.

        Raises:
            UserError: the disk is full, or the place cannot be written to; what there was is still there.
        """
        path, part = Path(out_dir, filename), Path(out_dir, f'{filename}.part')
        kwargs['meta'] = (kwargs.get('meta') or {}) | described(self)
        if self.rank:
            return
        with disk_errors(path, 'make room, then --resume continues from the checkpoint before'):
            try:
                super().save_checkpoint(out_dir, part.name, *args, **kwargs)
                with part.open('rb') as file:
                    os.fsync(file.fileno())
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
            sync_folder(path.parent)

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = 'default',
    ) -> None:
        """Loads a checkpoint and continues where it was written, as the config says; see `restore`.

        Raises:
            UserError: as `load_checkpoint`.
        """
        checkpoint = self.load_checkpoint(filename, get_device() if map_location == 'default' else map_location)
        self.resumed_from = Path(filename)
        restore(self, checkpoint, filename)
        if self.iter >= self.max_iters:
            self.logger.warning(f'{filename} is of iteration {self.iter}, the last: there is nothing left to train.')

    def load_checkpoint(self, filename: str, map_location='cpu', strict: bool = True, **kwargs) -> dict:
        """As MMEngine, but a weight that is missing, left over, or of another shape or kind is an error.

        `before_run` is called first: hooks such as `EMAHook` change what is loaded.

        Raises:
            UserError: as `load_from_local`, or the checkpoint belongs to another model.
        """
        self.call_hook('before_run')
        try:
            checkpoint = super().load_checkpoint(filename, map_location, strict, **kwargs)
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise UserError(
                f'Checkpoint {filename} does not fit this model ({" ".join(lines)[:300]}): use the config it was '
                'trained with, or, to start from all of it but heads of other classes, name it as initial_weights.'
            ) from error
        model = self.model.module if is_model_wrapper(self.model) else self.model
        refuse_other_kinds(model.state_dict(), checkpoint.get('state_dict', checkpoint), filename)
        return checkpoint


def _dataset_of(loop: BaseLoop | dict | None) -> Dataset | None:
    """What a loop reads; None where it has not been built."""
    return loop.dataloader.dataset if isinstance(loop, BaseLoop) else None


def _name_images(loop: BaseLoop) -> BaseLoop:
    """Tells metrics that write something of each image which images there are, so that its name is the image's path."""
    for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
        if hasattr(metric, 'name_images_of'):
            metric.name_images_of(loop.dataloader.dataset)
    return loop
