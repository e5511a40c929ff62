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
    """MMEngine's Runner with these differences.

    On CPUs, it trains in float32 on the gloo backend, with BatchNorm instead of SyncBatchNorm, and logs a warning.
    Non-finite optimizer steps are skipped, see `tokenlabel.engine.optim.optim_wrapper`.
    A resumed run takes the same steps as an uninterrupted one: same samples, augmentation and random numbers. Settings
    come from the current config, not from the checkpoint, see `restore`. At Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 it
    writes a checkpoint and stops, see `StopOnSignal`. Only one run at a time trains in a work dir.
    Checkpoints are written atomically, read without executing code, and must match the model in every weight.
    `initial_weights` sets the weights to start from, at any resolution and with any classes. `keep_global_batch=True`
    keeps the recipe's global batch size and learning rate on any number of processes.
    """

    _before_run_called = False  # True between `before_run` and `after_run`
    resumed_from: Path | None = None  # the checkpoint that training resumed from

    def __init__(self, model: torch.nn.Module | dict, work_dir: str, *args, **kwargs) -> None:
        """As MMEngine.

        Raises:
            UserError: the work dir is not writable.
        """
        with folder_errors(work_dir):
            super().__init__(model, work_dir, *args, **kwargs)

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'Runner':
        """As MMEngine, but replaces some MMEngine types by this project's subclasses, see `substitute`."""
        replaced = substitute(cfg)
        runner = super().from_cfg(cfg)
        if replaced:
            runner.logger.info(f'Types of the config are replaced by subclasses: {", ".join(replaced)}.')
        return runner

    def setup_env(self, env_cfg: dict) -> None:
        """Starts the process group on gloo if there is no GPU; MMEngine's launchers need one."""
        if self.distributed and not is_distributed() and not torch.cuda.is_available():
            if self._launcher == 'slurm':
                names = {'RANK': 'PROCID', 'WORLD_SIZE': 'NTASKS', 'LOCAL_RANK': 'LOCALID'}
                os.environ |= {name: os.environ[f'SLURM_{slurm_name}'] for name, slurm_name in names.items()}
            torch.distributed.init_process_group('gloo')
        super().setup_env(env_cfg)
        if self.distributed:
            wait_for_idle_threads()

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """As MMEngine, but raises an error if the log file cannot be written."""
        logger = super().build_logger(*args, **kwargs)
        raise_in_log_files(logger)
        return logger

    def dump_config(self) -> None:
        """Does nothing: `train` writes the config once it has locked the work dir."""

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
        """As MMEngine, but in float32 without a GPU, and with the accumulation of `keep_global_batch`."""
        if not isinstance(optim_wrapper, dict):
            return super().build_optim_wrapper(optim_wrapper)
        optim_wrapper = copy.deepcopy(optim_wrapper)
        if optim_wrapper.get('type') == 'SkippingAmpOptimWrapper' and not torch.cuda.is_available():
            self.logger.warning('No GPU: training in float32 instead of mixed precision.')
            optim_wrapper['type'] = 'SkippingOptimWrapper'
            for option in ('dtype', 'loss_scale', 'use_fsdp'):
                optim_wrapper.pop(option, None)
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
            UserError: a schedule is invalid, such as one that ends before it begins.
        """
        scheduler, notes = with_ends(scheduler, {**self.cfg.train_cfg, 'max_iters': self.max_iters})
        for note in notes:
            self.logger.warning(note)
        try:
            built = super().build_param_scheduler(scheduler)
        except ValueError as error:
            raise UserError(f'The config has an invalid schedule ({error}): correct its param_scheduler.') from error
        self._warn_of_zero_rate(built)
        return built

    def _warn_of_zero_rate(self, schedulers: list | dict) -> None:
        """Warns if training continues after its schedules have ended at a learning rate of 0."""
        lr_schedulers = [one for one in schedulers if one.param_name == 'lr'] if isinstance(schedulers, list) else []
        if not lr_schedulers or any(one.by_epoch for one in lr_schedulers):
            return
        end = max(one.end for one in lr_schedulers)
        above_0 = any(getattr(one, 'eta_min', None) for one in lr_schedulers if one.end == end)
        if end < self.max_iters and not above_0 and not any(rates_at(lr_schedulers, end)):
            self.logger.warning(
                f'The learning rate is 0 from iteration {end} to the last, {self.max_iters}: lengthen the schedules '
                '(param_scheduler.N.end), or train for fewer iterations.'
            )

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scales the learning rate with the global batch size, unless `keep_global_batch` keeps the batch size."""
        counts = kept_accumulation(self.cfg, self.world_size)
        if counts is None:
            super().scale_lr(optim_wrapper, auto_scale_lr)
        else:
            self.logger.info(f'keep_global_batch: each optimizer step accumulates {counts} iterations.')

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """Registers hooks, including those for exact resuming; checkpoints are written between optimizer steps."""
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
        """As MMEngine, but calls `before_run` once per run and puts bare weights of a file under `state_dict`."""
        if fn_name == 'before_run':
            if self._before_run_called:
                return
            self._before_run_called = True
        if fn_name == 'after_load_checkpoint' and 'state_dict' not in kwargs['checkpoint']:
            kwargs['checkpoint'] = {'state_dict': kwargs['checkpoint']}
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'after_run':
            self._before_run_called = False

    def train(self) -> torch.nn.Module:
        """Trains and returns the model; handles signals meanwhile.

        Processes that torchrun has restarted resume from the newest checkpoint.

        Raises:
            SystemExit: a signal has stopped the run, see `StopOnSignal`.
            UserError: another run uses the work dir, or it is not writable.
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
        """Writes the config to the work dir as a new file, so that hard links to the old file keep its content."""
        name = Path(self.cfg.filename).name if self.cfg.filename else f'{self.timestamp}.py'
        write_atomically(Path(self.work_dir, name), self.cfg.dump())

    def build_train_loop(self, loop: dict | BaseLoop) -> BaseLoop:
        """Builds the loop; validation, which may write checkpoints, runs between optimizer steps.

        Raises:
            UserError: as `check_ends`.
        """
        loop = super().build_train_loop(loop)
        if not isinstance(loop, IterBasedTrainLoop):
            check_ends(loop.dataloader, 'train')
        validation_between_steps(loop, iterations_per_step(self.cfg, self.world_size))
        return loop

    def build_val_loop(self, loop: dict | BaseLoop) -> BaseLoop:
        """Builds the loop and passes the dataset to metrics that need image paths.

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
        """Builds a loader whose samples depend only on the seed and their position in the order."""
        if isinstance(dataloader, dict):
            dataloader = with_seeded_samples(dataloader, (seed or 0) - get_rank() * diff_rank_seed)
        loader = mmengine.runner.Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        # a separate generator, since starting workers must not change the random numbers of training
        loader.generator = torch.Generator().manual_seed(seed or 0)
        loader.worker_init_fn = partial(start_worker, loader.worker_init_fn)
        return loader

    def load_or_resume(self) -> None:
        """As MMEngine; a run that neither resumes nor loads weights starts from `initial_weights` if they are set.

        If no checkpoint is named, resumes from `newest_checkpoint`; if there is none, training starts from scratch.
        Also resolves the classes: those of the training images before a checkpoint is loaded, those of the evaluation
        images after.

        Raises:
            UserError: as `load_initial_weights`, `newest_checkpoint` and `resolve_classes`; or `load_from` and
                `initial_weights` are both set.
        """
        resolve_classes(self.model, training=_dataset_of(self._train_loop)).apply()
        path = self.cfg.get('initial_weights')
        if self._resume and not self._load_from:
            newest = newest_checkpoint(self.work_dir, checkpoint_folder(self))
            self._resume, self._load_from = newest is not None, newest and str(newest)
            if newest is None:
                self.logger.warning(f'No checkpoint in {self.work_dir} to resume from: training starts from scratch.')
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
        """Writes to a temporary name first, so that a checkpoint under its final name is complete and on disk.

        Raises:
            UserError: the disk is full or the folder is not writable; earlier checkpoints are kept.
        """
        path, part = Path(out_dir, filename), Path(out_dir, f'{filename}.part')
        kwargs['meta'] = (kwargs.get('meta') or {}) | described(self)
        if self.rank:
            return
        with disk_errors(path, 'make room, then resume from the previous checkpoint with --resume'):
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
        """Loads a checkpoint and resumes from its iteration with the settings of the config; see `restore`.

        Raises:
            UserError: as `load_checkpoint`.
        """
        checkpoint = self.load_checkpoint(filename, get_device() if map_location == 'default' else map_location)
        self.resumed_from = Path(filename)
        restore(self, checkpoint, filename)
        if self.iter >= self.max_iters:
            self.logger.warning(f'{filename} is of iteration {self.iter}, the last: there is nothing left to train.')

    def load_checkpoint(self, filename: str, map_location='cpu', strict: bool = True, **kwargs) -> dict:
        """As MMEngine, but a missing or unexpected weight, or one of another shape or dtype, is an error.

        `before_run` is called first, as hooks such as `EMAHook` change what is loaded.

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
                'trained with, or set initial_weights to it to load all but heads with other classes.'
            ) from error
        model = self.model.module if is_model_wrapper(self.model) else self.model
        refuse_other_kinds(model.state_dict(), checkpoint.get('state_dict', checkpoint), filename)
        return checkpoint


def _dataset_of(loop: BaseLoop | dict | None) -> Dataset | None:
    """The dataset of a loop; None if the loop has not been built."""
    return loop.dataloader.dataset if isinstance(loop, BaseLoop) else None


def _name_images(loop: BaseLoop) -> BaseLoop:
    """Passes the dataset to metrics that write a file per image, which they name after the image's path."""
    for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
        if hasattr(metric, 'name_images_of'):
            metric.name_images_of(loop.dataloader.dataset)
    return loop
