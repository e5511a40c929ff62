"""Checkpoints that a run can go on from exactly, however it ended."""

import math
import os
from numbers import Real
from pathlib import Path

from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner

from tokenlabel.engine.resuming.random_states import random_states
from tokenlabel.files import write_atomically


@HOOKS.register_module()
class ResumableCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, which our Runner puts in its place.

    With the random states of every process in the checkpoint; an old checkpoint goes once the new one is on disk.
    """

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """As MMEngine; a score that is no number, as of classes that do not occur, is not the best and hides none."""
        info = runner.message_hub.runtime_info
        for name in [name for name, best in info.items() if name.startswith('best_score') and _is_nan(best)]:
            info.pop(name)
        scores = {name: None if _is_nan(value) else value for name, value in metrics.items()}
        unscored = [name for name in getattr(self, 'key_indicators', ()) if name in scores and scores[name] is None]
        if unscored:
            runner.logger.warning(f'{", ".join(unscored)} is no number: these weights are not taken for the best.')
        super().after_val_epoch(runner, scores)

    def save(self, runner: Runner) -> Path:
        """Saves the iteration that just ended, unless it has been; returns the file."""
        path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(runner.iter + 1))
        if self.last_ckpt != path:
            self._save_checkpoint(runner)
        return Path(path)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        hub = runner.message_hub
        kept = list(hub.runtime_info.get('keep_ckpt_ids', ()))
        kept += [step] * (step not in kept)
        # With the one that is about to go: a run that is killed before it has gone removes it when it resumes.
        hub.update_info('keep_ckpt_ids', kept)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        hub.update_info('last_ckpt', self.last_ckpt)
        options = {'save_optimizer': self.save_optimizer, 'save_param_scheduler': self.save_param_scheduler}
        runner.save_checkpoint(
            self.out_dir,
            os.path.basename(self.last_ckpt),
            meta=meta | {'random_states': all_gather_object(random_states())},
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **options,
            **self.args,
        )
        if is_main_process():
            write_atomically(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt)
        while len(kept) > self.max_keep_ckpts > 0:
            old = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(kept.pop(0)))
            if is_main_process() and self.file_backend.isfile(old):
                self.file_backend.remove(old)
        hub.update_info('keep_ckpt_ids', kept)


def _is_nan(score: object) -> bool:
    return isinstance(score, Real) and math.isnan(score)


@HOOKS.register_module()
class ValidateWhatWasNot(Hook):
    """A resumed run first validates what its checkpoint was to be validated with.

    A checkpoint is written before the validation of its iteration. A run that ended in between has neither that
    validation's metrics nor its best checkpoint.
    """

    priority = 'HIGHEST'  # the note is in the checkpoint that the validation may cause

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
            runner.logger.info(f'Iteration {iteration} was not validated before the run ended: it is now.')
            runner.val_loop.run()
