"""What a run resumes from: whole, and in its own shapes, or it does not resume."""

import copy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapperDict

from tests.engine.resuming.small_runs import ADAMW, checkpoint_of, small_run, take_step, wrappers_of
from tests.two_processes import in_two_processes
from tokenlabel.engine.resuming.checkpoint_files import load_from_local
from tokenlabel.engine.resuming.completeness import check_complete, state_of_one
from tokenlabel.engine.resuming.random_states import set_random_states
from tokenlabel.errors import UserError

SGD = {'type': torch.optim.SGD, 'lr': 0.1, 'momentum': 0.9}
OPTIMIZERS = {
    'AdamW, fused': ADAMW,
    'AdamW, amsgrad': {'type': torch.optim.AdamW, 'lr': 0.1, 'amsgrad': True},
    'SGD': {'type': torch.optim.SGD, 'lr': 0.1},
    'SGD with momentum': SGD,
    'Adagrad': {'type': torch.optim.Adagrad, 'lr': 0.1},
    'RMSprop': {'type': torch.optim.RMSprop, 'lr': 0.1, 'momentum': 0.9, 'centered': True},
    'Adafactor': {'type': torch.optim.Adafactor, 'lr': 0.1},
}


def saved(run: SimpleNamespace | None = None) -> dict:
    """A checkpoint after a step, in memory of its own."""
    run = run or small_run()
    take_step(run)
    return copy.deepcopy(checkpoint_of(run))


def resume(checkpoint: dict, run: SimpleNamespace) -> None:
    """Resumes as MMEngine does, and takes a step."""
    check_complete(checkpoint, run)
    for hook in run.hooks:
        hook._swap_ema_state_dict(checkpoint)
        hook.ema_model.load_state_dict(checkpoint['ema_state_dict'])
    getattr(run.model, 'module', run.model).load_state_dict(checkpoint['state_dict'])
    run.optim_wrapper.load_state_dict(checkpoint['optimizer'])
    for state in checkpoint['meta'].get('random_states') or []:
        set_random_states(state)
    take_step(run)


def refused(checkpoint: dict, match: str, run: SimpleNamespace | None = None) -> None:
    with pytest.raises(UserError, match=match) as caught:
        check_complete(checkpoint, run or small_run())
    message = str(caught.value)
    assert message.startswith('c.pth ') and '\n' not in message and len(message) < 500


def changed(checkpoint: dict, place: str, value: object) -> None:
    """Sets an entry that is named by a path with dots, or takes it out where `value` is `OUT`."""
    *path, last = [int(part) if part.isdigit() else part for part in place.split('.')]
    for part in path:
        checkpoint = checkpoint[part]
    if value is OUT:
        del checkpoint[last]
    else:
        checkpoint[last] = value(checkpoint[last]) if callable(value) else value


OUT = object()


@pytest.mark.parametrize('optimizer', OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize('ema', [True, False])
def test_a_checkpoint_of_the_run_itself_is_complete_and_resumes_to_the_bit(tmp_path, optimizer, ema):
    whole = small_run(optimizer=optimizer, ema=ema)
    take_step(whole)
    torch.save(checkpoint_of(whole), tmp_path / 'c.pth')
    resumed = small_run(optimizer=optimizer, ema=ema)
    resume(load_from_local(tmp_path / 'c.pth', 'cpu'), resumed)
    take_step(whole)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


# What is missing


@pytest.mark.parametrize('part', ['meta', 'message_hub', 'optimizer', 'param_schedulers', 'meta.iter', 'meta.epoch'])
def test_without_one_of_its_parts_it_is_weights_alone(part):
    checkpoint = saved()
    changed(checkpoint, part, OUT)
    refused(checkpoint, r'holds no whole state of a run to resume \(without .*start from its weights instead')


def test_what_convert_writes_is_weights_alone():
    refused({'meta': {}, 'state_dict': saved()['state_dict'], 'tokenlabel': {}}, 'holds no whole state of a run')


def test_a_run_without_schedules_wants_none():
    run, checkpoint = small_run(), saved()
    run.param_schedulers = None
    del checkpoint['param_schedulers']
    check_complete(checkpoint, run)


def test_schedules_are_begun_where_the_run_had_none_and_wanted_where_it_had():
    checkpoint = saved()
    del checkpoint['param_schedulers']
    checkpoint['meta']['cfg'] = 'param_scheduler = None'
    check_complete(checkpoint, small_run())
    checkpoint['meta']['cfg'] = "param_scheduler = [dict(type='LinearLR')]"
    refused(checkpoint, r'without param_schedulers')


def test_ema_weights_have_to_be_where_the_config_has_them_and_nowhere_else():
    refused(saved(small_run(ema=False)), 'holds no EMA weights and the config has an EMAHook')
    refused(saved(), 'holds EMA weights and the config has no EMAHook', small_run(ema=False))


# What is of another type, shape or number

EXP_AVG = 'optimizer.state.0.exp_avg'
STEP = 'optimizer.state.0.step'
WRONG = [
    ('meta.iter', -5, 'iter -5'),
    ('meta.iter', 10**9, 'iter 1000000000'),
    ('meta.iter', '20', "iter '20'"),
    ('meta.iter', 20.0, 'iter 20.0'),
    ('meta.iter', True, 'iter True'),
    ('meta.iter', None, 'iter None'),
    ('meta.iter', torch.tensor(3), 'iter a Tensor'),
    ('meta.epoch', -1, 'epoch -1'),
    ('meta.seed', 10**30, 'seed 1000'),
    ('meta.seed', 'x', "seed 'x'"),
    ('meta.epoch', [1], 'epoch a list'),
    ('message_hub', 5, 'holds no log of a run'),
    ('message_hub.log_scalars', OUT, 'holds no log of a run'),
    ('message_hub.runtime_info', [], 'holds no log of a run'),
    ('message_hub.log_scalars', {5: 5}, 'a name that is not a string'),
    ('message_hub.log_scalars.train/loss', 5, 'an invalid history of train/loss'),
    ('message_hub.log_scalars.train/loss', lambda history: broken(history, _count_history='x'), 'history of train/lo'),
    ('message_hub.log_scalars.train/loss', lambda history: broken(history, _log_history=None), 'history of train/lo'),
    ('message_hub.runtime_info.best_score', 'good', 'a best_score that is not a number'),
    ('message_hub.resumed_keys', {'x': 'yes'}, 'does not say whether x is resumed'),
    ('optimizer', [], 'holds no state of the optimizer'),
    ('optimizer.state', [], 'holds no state of the optimizer'),
    ('optimizer.param_groups', {}, 'holds no parameter groups'),
    ('optimizer.param_groups', lambda groups: groups[:1], 'holds 1 parameter groups of 2 parameters .* has 2 of 6'),
    ('optimizer.param_groups', lambda groups: groups[::-1], '2 parameter groups of 6 parameters .* otherwise shared'),
    ('optimizer.param_groups.0.params', 5, 'holds no parameter groups'),
    ('optimizer.param_groups.0.params', [0, 0], 'does not number the parameters'),
    ('optimizer.param_groups.0.params', ['a', 1], 'does not number the parameters'),
    ('optimizer.param_groups.0.lr', '0.1', "holds '0.1' as lr of group 0"),
    ('optimizer.param_groups.0.lr', float('nan'), 'holds nan as lr of group 0'),
    ('optimizer.param_groups.0.lr', OUT, 'holds no lr of group 0'),
    ('optimizer.param_groups.0.betas', (0.9,), 'holds a tuple as betas'),
    ('optimizer.param_groups.0.betas', ('a', 'b'), 'as betas of group 0'),
    ('optimizer.param_groups.0.fused', 'yes', "holds 'yes' as fused"),
    ('optimizer.param_groups.1.weight_decay', None, 'holds None as weight_decay of group 1'),
    ('optimizer.base_param_settings', 5, 'holds no options of the optimizer'),
    ('optimizer.loss_scaler', {'scale': 'x'}, 'holds a loss scaler'),
    ('optimizer.loss_scaler', 5, 'holds a loss scaler'),
    ('optimizer.state.0', OUT, r'no state of the optimizer for 0\.weight: .*find_unused_parameters=True'),
    ('optimizer.state', {}, 'no state of the optimizer for'),
    ('optimizer.state.77', {}, 'state of the optimizer for parameter 77, which is in no group'),
    ('optimizer.state.a', {}, "state of the optimizer for parameter 'a'"),
    ('optimizer.state.0', 5, r'no state of the optimizer for 0\.weight'),
    ('optimizer.state.0', {5: 5}, r'no state of the optimizer for 0\.weight'),
    (EXP_AVG, OUT, r'no exp_avg of the optimizer for 0\.weight'),
    (EXP_AVG, torch.ones(4, 3), r'as float32 \[4, 3\] instead of float32 \[3, 4\]'),
    (EXP_AVG, torch.ones(12), r'as float32 \[12\] instead of'),
    (EXP_AVG, torch.ones(1), r'as float32 \[1\] instead of'),
    (EXP_AVG, torch.ones(0), r'as float32 \[0\] instead of'),
    (EXP_AVG, torch.ones(3, 4, dtype=torch.float64), r'as float64 \[3, 4\] instead of'),
    (EXP_AVG, torch.ones(3, 4, dtype=torch.int64), r'as int64 \[3, 4\] instead of'),
    (EXP_AVG, torch.full((3, 4), float('nan')), 'with invalid values'),
    (EXP_AVG, 0.5, 'a number as exp_avg'),
    (EXP_AVG, 'x', 'a str as exp_avg'),
    (EXP_AVG, None, 'a NoneType as exp_avg'),
    (EXP_AVG, [torch.ones(3, 4)], 'a list as exp_avg'),
    (STEP, torch.ones(1), r'step .* as float32 \[1\] instead of float32 \[\]'),
    (STEP, torch.ones(3, 4), r'step .* as float32 \[3, 4\] instead of'),
    (STEP, torch.tensor(1), r'step .* as int64 \[\] instead of'),
    (STEP, torch.tensor(float('nan')), 'step .* with invalid values'),
    (STEP, torch.tensor(-1.0), 'step .* with invalid values'),
    (STEP, 'x', 'a str as step'),
    ('param_schedulers', 5, 'holds no schedules'),
    ('param_schedulers', [5, 5], 'holds no schedules'),
    ('param_schedulers', lambda schedules: schedules[:1], 'holds 1 schedules and its run had 2'),
    ('meta.random_states', 5, 'invalid random states'),
    ('meta.random_states', [], 'invalid random states'),
    ('meta.random_states.0', {}, 'invalid random states of process 0'),
    ('meta.random_states.0.python', (3, (1, 2), None), 'random states of process 0'),
    ('meta.random_states.0.numpy', ('MT19937', [1], 0, 0, 0.0), 'random states of process 0'),
    ('meta.random_states.0.torch', torch.zeros(5056, dtype=torch.uint8), 'random states of process 0'),
    ('meta.random_states.0.torch', torch.zeros(3), 'random states of process 0'),
    ('meta.random_states.0.cuda', 'x', 'random states of process 0'),
    ('ema_state_dict.module.0.weight', OUT, 'do not fit each other'),
    ('ema_state_dict.steps', torch.ones(2), 'does not count the steps'),
    ('ema_state_dict', {}, 'do not fit each other'),
    ('state_dict', OUT, 'holds no weights'),
]


def broken(history: HistoryBuffer, **attributes) -> HistoryBuffer:
    vars(history).update(attributes)
    return history


@pytest.mark.parametrize(('place', 'value', 'match'), WRONG, ids=lambda value: value if isinstance(value, str) else '')
def test_what_does_not_fit_the_run_is_refused_by_its_name(place, value, match):
    checkpoint = saved()
    if place.startswith('ema_state_dict.'):
        part, _, name = place.partition('.')
        checkpoint[part].pop(name) if value is OUT else checkpoint[part].update({name: value})
    else:
        changed(checkpoint, place, value)
    refused(checkpoint, match)


def test_momentum_of_another_shape_is_refused_of_sgd_as_well():
    checkpoint = saved(small_run(optimizer=SGD))
    checkpoint['optimizer']['state'][1]['momentum_buffer'] = torch.ones(5)
    refused(checkpoint, r'momentum_buffer .* for 0\.bias as float32 \[5\]', small_run(optimizer=SGD))


def test_the_state_of_another_optimizer_is_refused():
    refused(saved(small_run(optimizer=SGD)), 'holds no ', small_run())


def test_parameters_without_gradients_need_no_state_where_the_config_says_so():
    checkpoint = saved()
    del checkpoint['optimizer']['state'][0]
    check_complete(checkpoint, small_run(find_unused_parameters=True))


def test_frozen_parameters_need_no_state():
    frozen, checkpoint = small_run(), saved()
    frozen.model[0].weight.requires_grad = False
    del checkpoint['optimizer']['state'][0]
    check_complete(checkpoint, frozen)


def test_several_optimizers_are_each_compared():
    def run() -> SimpleNamespace:
        found = small_run(ema=False)
        found.optim_wrapper = OptimWrapperDict(a=found.optim_wrapper, b=small_run(ema=False).optim_wrapper)
        found.param_schedulers = None
        return found

    checkpoint = checkpoint_of_several(run())
    check_complete(copy.deepcopy(checkpoint), run())
    short = copy.deepcopy(checkpoint)
    del short['optimizer']['b']
    refused(short, 'holds other optimizers than this run, which has a, b', run())
    checkpoint['optimizer']['b']['state'][0]['exp_avg'] = torch.ones(2)
    refused(checkpoint, 'exp_avg of the optimizer b for', run())


def checkpoint_of_several(run: SimpleNamespace) -> dict:
    for wrapper in wrappers_of(run):
        for group in wrapper.optimizer.param_groups:
            for parameter in group['params']:
                parameter.grad = torch.ones_like(parameter)
        wrapper.optimizer.step()
    run.param_schedulers = []
    return copy.deepcopy(checkpoint_of(run))


def test_states_that_share_memory_in_the_file_are_stepped_each_on_its_own(tmp_path):
    checkpoint, run = saved(), small_run()
    step = torch.tensor(1.0)
    for state in checkpoint['optimizer']['state'].values():
        state['step'] = step
    torch.save(checkpoint, tmp_path / 'c.pth')
    resume(load_from_local(tmp_path / 'c.pth', 'cpu'), run)
    steps = [state['step'] for state in run.optim_wrapper.optimizer.state.values()]
    assert len(steps) == 6 and all(step == 2 for step in steps)


def test_an_optimizer_of_anybodys_that_takes_no_step_by_itself_is_not_compared():
    assert state_of_one(torch.optim.LBFGS([torch.ones(2, requires_grad=True)]), 1) is None


# Anything in the place of anything

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.builds(
        lambda shape, dtype, value: torch.full(shape, value, dtype=dtype),
        st.lists(st.integers(0, 4), max_size=3),
        st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool]),
        st.sampled_from([0.0, 1.0, -1.0]),
    ),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), values, max_size=3)
    ),
    max_leaves=5,
)


def places_in(value: object, place: tuple = ()) -> list[tuple]:
    """Of all entries, with at most two of a list."""
    if isinstance(value, dict):
        inner = [found for key, x in value.items() for found in places_in(x, (*place, key))]
    elif isinstance(value, list):
        inner = [found for index, x in enumerate(value[:2]) for found in places_in(x, (*place, index))]
    else:
        inner = []
    return [place, *inner]


@settings(max_examples=150)
@given(data=st.data())
def test_only_a_sentence_comes_out_of_a_checkpoint_with_anything_in_the_place_of_anything(tmp_path_factory, data):
    checkpoint = saved()
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(places_in(checkpoint)[1:]))
        inner = checkpoint
        for part in path:
            inner = inner[part]
        if data.draw(st.integers(0, 3)):
            inner[last] = data.draw(PLAIN)
        else:
            del inner[last]
    path = tmp_path_factory.mktemp('any', numbered=True) / 'c.pth'
    torch.save(checkpoint, path)
    try:
        found = load_from_local(path, 'cpu')
        run = small_run()
        check_complete(found, run)
        # as `Runner.load_checkpoint` does: shapes and names of weights are torch's affair
        try:
            resume(found, run)
        except RuntimeError as error:
            assert 'state_dict' in str(error), error
    except UserError as error:
        assert '\n' not in str(error)


# Two processes


def check_in_two_processes(rank: int) -> None:
    run = small_run(MMDistributedDataParallel)
    checkpoint = saved(small_run())
    check_complete(copy.deepcopy(checkpoint), run)
    checkpoint['optimizer']['state'][0]['exp_avg'] = torch.ones(4, 3)
    refused(checkpoint, r'for (module\.)?0\.weight as float32 \[4, 3\] instead of float32 \[3, 4\]', run)


def test_both_of_two_processes_refuse():
    in_two_processes(check_in_two_processes)
