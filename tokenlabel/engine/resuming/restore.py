"""Restores weights, states and counters from a checkpoint; settings come from the config."""

from mmengine.runner import EpochBasedTrainLoop, Runner

from tokenlabel.engine.resuming.differences import announce, differences, facts_of
from tokenlabel.engine.resuming.optimizer_state import load_optimizer_state, of_optimizer, parameter_names, wrappers_of
from tokenlabel.engine.resuming.schedules import advance, continue_states, follows_a_metric
from tokenlabel.errors import UserError

# Entries of the MessageHub that describe the run itself and are not restored.
OWN_INFO = {
    'cfg',
    'dataset_meta',
    'epoch',
    'experiment_name',
    'iter',
    'last_ckpt',
    'loop_stage',
    'max_epochs',
    'max_iters',
    'mmengine_version',
    'seed',
}


def described(runner: Runner) -> dict:
    """Entries that `restore` needs in a checkpoint's `meta` beside MMEngine's: names and numbers."""
    orders = {name: parameter_names(wrapper, runner.model) for name, wrapper in wrappers_of(runner).items()}
    return {'facts': facts_of(runner), 'optimizer_parameters': list(orders.values())}


def restore(runner: Runner, checkpoint: dict, filename: str) -> None:
    """Restores the state of a run whose weights are loaded.

    Replaces the second half of MMEngine's `Runner.resume`, which executes the config in the checkpoint and lets it
    override learning rate, schedules, seed and optimizer settings. Here these come from the current config, and
    schedules are recomputed up to the iteration. One log line lists all differences.

    Args:
        runner: runner with loop, optimizers and schedules built from the config.
        checkpoint: contents of `filename`.
        filename: for messages.

    Raises:
        UserError: a schedule ends before the checkpoint's iteration and has no value there.
    """
    meta = checkpoint['meta']
    runner.train_loop._epoch, runner.train_loop._iter = meta['epoch'], meta['iter']
    found = differences(runner, checkpoint, *_rates(runner, checkpoint))
    _take_seed(runner, meta.get('seed'))
    _take_log(runner, checkpoint.get('message_hub'))
    for name, wrapper in wrappers_of(runner).items():
        if 'optimizer' in checkpoint:
            load_optimizer_state(wrapper, of_optimizer(checkpoint['optimizer'], name))
    _move_schedules(runner, checkpoint)
    announce(runner, filename, found)
    runner.logger.info(f'resumed epoch: {runner.epoch}, iter: {runner.iter}')


def _rates(runner: Runner, checkpoint: dict) -> tuple[float | None, float | None]:
    """Learning rates before schedules: of this run and of the checkpoint."""
    name, wrapper = next(iter(wrappers_of(runner).items()))
    if 'optimizer' not in checkpoint:
        return None, None
    stored = of_optimizer(checkpoint['optimizer'], name)
    groups = [wrapper.param_groups[-1], stored.get('base_param_settings') or stored['param_groups'][-1]]
    first, second = (group.get('initial_lr', group.get('lr')) for group in groups)
    return first, second


def _take_seed(runner: Runner, seed: object) -> None:
    """Uses the checkpoint's seed, which determines the sample order, if the config sets none."""
    if runner._randomness_cfg.get('seed') is None and isinstance(seed, int):
        runner._randomness_cfg.update(seed=seed)
        runner.set_randomness(**runner._randomness_cfg)
        runner.train_dataloader.sampler.seed = runner.train_dataloader.dataset.seed = seed


def _take_log(runner: Runner, stored: dict | None) -> None:
    """Restores the log history and the hooks' entries in the MessageHub."""
    if stored is not None:
        info = {name: value for name, value in stored['runtime_info'].items() if name not in OWN_INFO}
        names = info.keys() | stored['log_scalars'].keys()
        keys = {name: value for name, value in stored['resumed_keys'].items() if name in names}
        runner.message_hub.load_state_dict({**stored, 'runtime_info': info, 'resumed_keys': keys})


def _move_schedules(runner: Runner, checkpoint: dict) -> None:
    schedulers = runner.param_schedulers
    if schedulers is None:
        return
    in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    per_epoch = len(runner.train_dataloader) if in_epochs else runner.iter
    for name in wrappers_of(runner):
        own = of_optimizer(schedulers, name) if isinstance(schedulers, dict) else schedulers
        states = checkpoint.get('param_schedulers')
        if not follows_a_metric(own):
            try:
                advance(own, runner.epoch, runner.iter, per_epoch)
            except ValueError as error:  # raised by schedules with a fixed number of steps
                raise UserError(
                    f'A schedule of the config does not reach iteration {runner.iter} ({error}): lengthen it '
                    '(param_scheduler), or resume from an earlier checkpoint.'
                ) from error
        elif states is not None and 'optimizer' in checkpoint:
            stored = of_optimizer(checkpoint['optimizer'], name)
            base = stored.get('base_param_settings')
            groups = [*stored['param_groups'], *([base] if base is not None else [])]
            continue_states(own, of_optimizer(states, name) if isinstance(states, dict) else states, groups)
