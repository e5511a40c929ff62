"""One key is the length of a training; schedules follow it."""

import pytest

from tokenlabel.engine.config.run_config import load_config, register_imports
from tokenlabel.engine.dry_run import TrainingLength, learning_rates
from tokenlabel.engine.length import with_ends

WARMUP = {'type': 'LinearLR', 'start_factor': 0.01, 'begin': 0, 'end': 5, 'convert_to_iter_based': True}
COSINE = {'type': 'CosineAnnealingLR', 'eta_min': 0.0, 'begin': 5, 'convert_to_iter_based': True}
# Learning rates of shipped configs at shares of the training, as they were when each schedule stated its own end.
AT = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.97, 1)
RATES = {
    'pretrain_lvvit_s': (
        *(1e-06, 0.0009862424242424248, 0.0015950821286797108, 0.001374878346569931, 0.0007842598547168174),
        *(0.00020698508136699986, 1.0000112702317057e-05, 1.0000112702317057e-05),
    ),
    'transfer': (
        *(1.0000000000000002e-06, 2.3846153846153853e-05, 9.997853227085014e-05, 8.886657670439436e-05),
        *(5.38990788147766e-05, 1.6780591519106187e-05, 1.254497414613764e-06, 1.0002650526160247e-06),
    ),
    'upernet_lvvit': (
        *(6e-11, 5.9962523422860786e-05, 5.753979520375554e-05, 4.542615410822944e-05, 3.028410273882096e-05),
        *(1.514205136940934e-05, 1.817046164328459e-06, 0.0),
    ),
    'fpn_lvvit': (
        *(0.0001, 9.910066322444186e-05, 9.5489612420961e-05, 7.71898190583645e-05, 5.358927600654655e-05),
        *(2.8717781950174583e-05, 4.2600433167059265e-06, 0.0),
    ),
    'demo/pretrain': (
        *(1e-06, 7.163636363636362e-05, 0.00039454545454545433, 0.0009519389914173441, 0.0006173126015254591),
        *(0.00019811253192535022, 1.311245610284492e-05, 1.0004985148957412e-05),
    ),
    'demo/upernet': (
        *(1e-05, 0.0005223076923076924, 0.003596153846153846, 0.008687258687258687, 0.005791505791505791),
        *(0.0028957528957528956, 0.0003474903474903479, 0.0),
    ),
}


def curve(config, images: int = 1_281_167, processes: int = 8) -> list[float]:
    schedulers, notes = with_ends(config.param_scheduler, config.train_cfg)
    assert not notes
    length = TrainingLength.of(config, images, processes)
    return learning_rates(schedulers, config.optim_wrapper.optimizer.lr, length)


@pytest.mark.parametrize('name', RATES)
def test_shipped_configs_have_the_learning_rates_of_their_recipes(name):
    config = load_config(name)
    register_imports(config)
    rates = curve(config)
    assert [rates[int(share * (len(rates) - 1))] for share in AT] == pytest.approx(RATES[name], rel=1e-12, abs=1e-18)


def test_a_shorter_training_ends_at_the_lowest_rate():
    config = load_config('pretrain_lvvit_s', {'train_cfg.max_epochs': 100})
    rates = curve(config)
    assert max(rates) == pytest.approx(1.6e-3, rel=1e-3)
    assert rates[-1] == pytest.approx(1e-5, rel=1e-3)
    assert sum(rate == rates[-1] for rate in rates) >= len(rates) // 10  # the cool-down
    config = load_config('upernet_lvvit', {'train_cfg.max_iters': 8000})
    assert curve(config)[-1] == 0


def test_a_schedule_without_end_ends_with_the_training_less_its_cooldown():
    (warmup, cosine), notes = with_ends([WARMUP, COSINE], {'max_epochs': 300, 'cooldown_epochs': 10})
    assert (warmup, cosine['end'], notes) == (WARMUP, 290, [])
    assert 'end' not in COSINE
    poly = {'type': 'PolyLR', 'by_epoch': False}
    assert with_ends(poly, {'max_iters': 80000}) == (poly | {'end': 80000}, [])
    both, _ = with_ends({'one': [COSINE], 'other': [poly]}, {'max_iters': 70})
    assert both == {'one': [COSINE], 'other': [poly | {'end': 70}]}


@pytest.mark.parametrize(('epochs', 'begin', 'end'), [(20, 4, 18), (10, 2, 9), (4, 1, 4), (2, 1, 2)])
def test_warmup_and_cooldown_of_a_short_training_are_shortened(epochs, begin, end):
    (warmup, cosine), [note] = with_ends([WARMUP, COSINE], {'max_epochs': epochs, 'cooldown_epochs': 10})
    assert (warmup['end'], cosine['begin'], cosine['end']) == (begin, begin, end)
    assert note == f'The warm-up of 5 epochs is shortened to {begin}, as the training has {epochs}.'


def test_a_training_of_one_step_is_warmup():
    schedulers, _ = with_ends([WARMUP, COSINE], {'max_epochs': 1})
    assert schedulers == [WARMUP | {'end': 1}, COSINE | {'begin': 1, 'end': 2}]


def test_an_end_beyond_the_training_is_kept_and_said():
    own = [COSINE | {'begin': 0, 'end': 300}]
    schedulers, [note] = with_ends(own, {'max_epochs': 100})
    assert schedulers == own
    assert note.startswith('The CosineAnnealingLR of param_scheduler ends at 300 epochs and the training at 100')
