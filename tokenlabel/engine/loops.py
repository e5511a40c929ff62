"""Iteration-based training configured in epochs; validation of raw and EMA weights."""

import copy

import torch
from mmengine.hooks import EMAHook
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, ValLoop
from mmengine.runner.amp import autocast
from mmengine.runner.runner import Runner

from tokenlabel.argument_checks import Count, Natural, checked
from tokenlabel.errors import UserError


def end_workers(loop: BaseLoop | dict | None) -> None:
    """Shuts down a loop's persistent workers.

    With pinned memory, torch waits five seconds for each worker at exit, because it does not tell them to stop.
    """
    loader = getattr(loop, 'dataloader', None)
    if (iterator := getattr(loader, '_iterator', None)) is not None:
        iterator._shutdown_workers()
        loader._iterator = None


@LOOPS.register_module()
class EpochsAsIterationsLoop(IterBasedTrainLoop):
    """MMEngine's iteration-based loop with length and validation interval in epochs of the dataset.

    An epoch is `len(dataset) / (batch size x world size)` iterations, rounded up, so one config works for any number
    of images and processes.

    Args:
        max_epochs: length of training, in epochs.
        val_interval: epochs between two validations.
        max_iters: length in iterations instead of epochs; intervals then count iterations too.
        cooldown_epochs: last epochs, in which schedules without `end` keep their final learning rate; at most a tenth
            of the training.
    """

    @checked
    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        max_epochs: Natural | None = None,
        val_interval: Count = 1,
        max_iters: Natural = 0,
        cooldown_epochs: Natural = 0,
    ) -> None:
        if bool(max_epochs) == bool(max_iters):
            raise UserError('train_cfg needs exactly one of `max_epochs` and `max_iters`: set one, remove the other.')
        # seeds may differ between ranks (MixToken, drop path), but all ranks share one order of samples
        seed = runner.seed - runner.rank * runner._randomness_cfg.get('diff_rank_seed', False)
        dataloader = copy.deepcopy(dataloader)
        dataloader['dataset'].setdefault('seed', seed)
        loader = runner.build_dataloader(dataloader, seed=seed)
        if max_epochs:
            max_iters, val_interval = max_epochs * len(loader), val_interval * len(loader)
        super().__init__(runner, loader, max_iters=max_iters, val_interval=val_interval)
        if max_epochs:
            self._max_epochs = max_epochs
        if skipped := getattr(loader.dataset, 'num_skipped', 0):
            runner.logger.warning(f'{skipped} images that the annotator skipped are left out of {loader.dataset.root}.')
        if absent := getattr(loader.dataset, 'num_absent', 0):
            runner.logger.warning(
                f'{absent} annotated images are not in {loader.dataset.root} (the first: '
                f'{loader.dataset.first_absent}): training skips them.'
            )


@LOOPS.register_module()
class RawAndEMAValLoop(ValLoop):
    """Validates the trained weights (`raw/...`) and, if an EMAHook keeps them, the EMA weights."""

    def run(self) -> dict:
        """Returns the metrics of both. Metrics of the EMA weights have no prefix; without EMA, neither have the raw."""
        runner = self.runner
        raw = {}
        runner.call_hook('before_val')
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raw = {f'raw/{name}': value for name, value in self._evaluate_quietly().items()}
        runner.call_hook('before_val_epoch')
        runner.model.eval()
        for index, batch in enumerate(self.dataloader):
            self.run_iter(index, batch)
        metrics = self.evaluator.evaluate(len(self.dataloader.dataset)) | raw
        runner.call_hook('after_val_epoch', metrics=metrics)
        runner.call_hook('after_val')
        return metrics

    @torch.no_grad()
    def _evaluate_quietly(self) -> dict:
        """One pass with the weights as they are, without hooks and their log lines."""
        self.runner.model.eval()
        for batch in self.dataloader:
            with autocast(enabled=self.fp16):
                outputs = self.runner.model.val_step(batch)
            self.evaluator.process(data_samples=outputs, data_batch=batch)
        return self.evaluator.evaluate(len(self.dataloader.dataset))
