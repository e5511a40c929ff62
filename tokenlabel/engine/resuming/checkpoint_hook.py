"""Writes checkpoints from which a run resumes exactly, however it ended."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from pathlib import Path, PurePath

import numpy as np
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

from tokenlabel.engine.resuming.checkpoint_files import LAST_CHECKPOINT
from tokenlabel.engine.resuming.random_states import random_states
from tokenlabel.errors import UserError
from tokenlabel.files.writing import write_atomically


@HOOKS.register_module()
class ResumableCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook that also stores the random states of every rank.

    An old checkpoint is removed once the new one is on disk.
    Checkpoints and `last_checkpoint` store file names without their folder, so that a work dir can be moved. The hook
    only removes files that this run wrote, or the run in the same folder that it resumes. If the run resumes from a
    checkpoint of another folder, it does not take over its best score or its checkpoints to remove.
    """

    def before_train(self, runner: Runner) -> None:
        info = runner.message_hub.runtime_info
        kept = info.pop('keep_ckpt_ids', [])
        best = {name: info.pop(name) for name in list(info) if name.startswith(('best_ckpt', 'best_score'))}
        super().before_train(runner)  # would remove the files that these entries name
        source = getattr(runner, 'resumed_from', None)
        if source is None or Path(source).resolve().parent != Path(self.out_dir).resolve():
            return
        kept = [step for step in kept if type(step) is int and step >= 0] if isinstance(kept, (list, tuple)) else []
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        self._remove_oldest(runner, kept)
        for metric, suffix in self._suffixes() if self.save_best else ():
            score, path = best.get(f'best_score{suffix}'), best.get(f'best_ckpt{suffix}')
            name = PurePath(path).name if isinstance(path, str) else ''
            if self._names_best(metric, name) and isinstance(score, (int, float, np.number)):
                self._note_best(runner, suffix, score, name)

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """As MMEngine, but a NaN score, as of classes that do not occur, never counts as the best."""
        info = runner.message_hub.runtime_info
        for name in [name for name, best in info.items() if name.startswith('best_score') and _is_nan(best)]:
            info.pop(name)
        scores = {name: None if _is_nan(value) else value for name, value in metrics.items()}
        unscored = [name for name in getattr(self, 'key_indicators', ()) if name in scores and scores[name] is None]
        if unscored:
            runner.logger.warning(f'{", ".join(unscored)} is NaN: these weights do not count as the best.')
        super().after_val_epoch(runner, scores)

    def save(self, runner: Runner) -> Path:
        """Saves the iteration that just ended, unless it is already saved; returns the file."""
        path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(runner.iter + 1))
        if self.last_ckpt != path:
            self._save_checkpoint(runner)
        return Path(path)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        hub = runner.message_hub
        kept = list(hub.runtime_info.get('keep_ckpt_ids', ()))
        kept += [step] * (step not in kept)
        # includes the checkpoint to be removed next: if the run is killed before, it removes it after resuming
        hub.update_info('keep_ckpt_ids', kept)
        name = self.filename_tmpl.format(step)
        hub.update_info('last_ckpt', name)
        meta = meta | {'random_states': all_gather_object(random_states())}
        with failing_together():
            runner.save_checkpoint(
                self.out_dir,
                name,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                **self.args,
            )
            if is_main_process():
                write_atomically(Path(runner.work_dir, LAST_CHECKPOINT), name)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        self._remove_oldest(runner, kept)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """As MMEngine, but removes the former best checkpoint only once the new one is on disk.

        Raises:
            UserError: validation does not compute the metric in `save_best`.
        """
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        step, unit = (runner.epoch, 'epoch') if self.by_epoch else (runner.iter, 'iter')
        meta = {'epoch': runner.epoch, 'iter': runner.iter}
        info, improved = runner.message_hub.runtime_info, False
        for (metric, suffix), rule in zip(self._suffixes(), self.rules, strict=True):
            if metric not in metrics:
                raise UserError(
                    f'The checkpoint hook saves the best {metric}, which validation does not compute: set '
                    f'default_hooks.checkpoint.save_best to one of {", ".join(metrics)}.'
                )
            score, best = metrics[metric], info.get(f'best_score{suffix}', self.init_value_map[rule])
            if score is None or not self.is_better_than[metric](score, best):
                continue
            improved = True
            former = info.get(f'best_ckpt{suffix}')
            name = f'best_{metric}_{self.filename_tmpl.format(step)}'.replace('/', '_')
            self._note_best(runner, suffix, score, name)
            with failing_together():
                runner.save_checkpoint(
                    self.out_dir,
                    name,
                    meta=dict(meta),
                    by_epoch=False,
                    backend_args=self.backend_args,
                    save_optimizer=False,
                    save_param_scheduler=False,
                )
            if former not in (None, name):
                self._remove(runner, former)
            runner.logger.info(f'The best checkpoint with {score:0.4f} {metric} at {step} {unit} is saved to {name}.')
        if improved and self.last_ckpt is not None:  # saved again with the new best score
            self._save_checkpoint_with_step(runner, step, meta)

    def _suffixes(self) -> list[tuple[str, str]]:
        """The metrics whose best checkpoint is saved, and the suffix of their keys in `runtime_info`."""
        return [(metric, '' if len(self.key_indicators) == 1 else f'_{metric}') for metric in self.key_indicators]

    def _note_best(self, runner: Runner, suffix: str, score: float, name: str) -> None:
        runner.message_hub.update_info(f'best_score{suffix}', score)
        runner.message_hub.update_info(f'best_ckpt{suffix}', name)
        path = self.file_backend.join_path(self.out_dir, name)
        if suffix:
            self.best_ckpt_path_dict[suffix[1:]] = path
        else:
            self.best_ckpt_path = path

    def _names_best(self, metric: str, name: str) -> bool:
        """Whether a file name is that of a best checkpoint of the metric."""
        start = '.+' if metric == 'auto' else re.escape(metric.replace('/', '_'))
        end = re.escape(self.filename_tmpl.replace('/', '_')).replace(r'\{\}', r'\d+')
        return re.fullmatch(f'best_{start}_{end}', name) is not None

    def _remove_oldest(self, runner: Runner, kept: list[int]) -> None:
        while len(kept) > self.max_keep_ckpts > 0:
            self._remove(runner, self.filename_tmpl.format(kept.pop(0)))
        runner.message_hub.update_info('keep_ckpt_ids', kept)

    def _remove(self, runner: Runner, name: str) -> None:
        path = Path(self.out_dir, name)
        if is_main_process() and path.is_file():
            path.unlink()
            runner.logger.info(f'The checkpoint {name} is removed.')


def checkpoint_folder(runner: Runner) -> Path:
    """The checkpoint folder of a run that has not started: the work dir, or the hook's `out_dir`."""
    work_dir = Path(runner.work_dir)
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.out_dir not in (None, runner.work_dir):
            return Path(hook.out_dir, work_dir.name)
    return work_dir


@contextmanager
def failing_together() -> Iterator[None]:
    """Raises a UserError of any rank on every rank.

    Raises:
        UserError: the block raised one on some rank; the lowest such rank gives the message.
    """
    fault = None
    try:
        yield
    except UserError as error:
        fault = str(error)
    if faults := [fault for fault in all_gather_object(fault) if fault is not None]:
        raise UserError(faults[0])


def _is_nan(score: object) -> bool:
    return isinstance(score, Real) and math.isnan(score)


@HOOKS.register_module()
class FinalValidationHook(Hook):
    """Makes up for a validation that the interrupted run did not finish.

    A checkpoint is written before the validation of its iteration. A run that ended in between has neither the metrics
    nor the best checkpoint of that validation.
    """

    priority = 'HIGHEST'  # so that the checkpoint after the validation records it

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        runner.message_hub.update_info('iter_validated', runner.iter)

    def before_train_epoch(self, runner: Runner) -> None:
        loop, iteration = runner.train_loop, runner.iter
        if runner.val_loop is None or not isinstance(loop, IterBasedTrainLoop):
            return
        if runner.message_hub.runtime_info.get('iter_validated') == iteration:
            return
        is_due = iteration % loop.val_interval == 0 or iteration == loop.max_iters
        if iteration > 0 and iteration >= loop.val_begin and is_due:
            runner.logger.info(f'Iteration {iteration} was not validated before the run ended: validating it now.')
            runner.val_loop.run()
