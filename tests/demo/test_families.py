"""Six families on image labels and on token labels."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.places import CONFIGS
from tokenlabel.demo import families as demo_families
from tokenlabel.demo.families import FAMILIES, LABELS, as_markdown, compare_families, train
from tokenlabel.demo.stages import SMALLEST, Stages
from tokenlabel.engine.classifier import create_network
from tokenlabel.engine.config.run_config import load_config


def network(family: str) -> torch.nn.Module:
    return create_network(**load_config(CONFIGS / f'demo/families/{family}.py').model.network, token_head=True).train()


def test_every_family_costs_about_the_same_on_as_many_locations():
    flops = []
    for family in FAMILIES:
        model = network(family)
        with FlopCounterMode(display=False) as counter:
            logits = model(torch.randn(2, 3, 48, 48))
        assert logits.tokens.shape == (2, 36, 10)
        flops.append(counter.get_total_flops())
    assert max(flops) < 1.5 * min(flops)


def test_a_run_is_repeated_only_when_it_has_changed(tmp_path, monkeypatch):
    done = []

    def pretrain(stages, run, options, config):
        done.append((run, config, options))
        return {'top1': 50.0, 'top5': 90.0}

    monkeypatch.setattr(Stages, 'pretrain', pretrain)
    for _ in range(2):
        assert train(tmp_path, SMALLEST, 1, 'swin', 'image')['top1'] == 50.0
    assert done == [
        (
            'families/swin_image_labels_seed1',
            'demo/families/swin',
            ['model.targets.type=ImageLabels', 'randomness.seed=1'],
        )
    ]
    monkeypatch.setitem(demo_families.LABELS, 'image', ['model.targets.type=ImageLabels', 'model.targets.smoothing=0'])
    train(tmp_path, SMALLEST, 1, 'swin', 'image')
    assert len(done) == 2


def test_the_table_has_both_labels_their_difference_and_the_seconds():
    def runs(*top1: float) -> list[dict]:
        return [{'top1': value, 'seconds': 10.0 + value} for value in top1]

    table = as_markdown({'seeds': 2, 'rows': {'swin': {'image': runs(10.0, 20.0), 'token': runs(40.0, 40.0)}}})
    assert '| Swin | 15.0 ± 7.1 | 40.0 ± 0.0 | +25.0 | 25 / 50 |' in table.splitlines()
    assert table.endswith('over 2 seeds')


@pytest.mark.slow
def test_families_are_compared_end_to_end(tmp_path, monkeypatch, capsys):
    for family in set(FAMILIES) - {'deit', 'resnet'}:
        monkeypatch.delitem(demo_families.FAMILIES, family)
    result = compare_families(tmp_path, SMALLEST, num_seeds=1, num_jobs=1)
    assert json.loads((tmp_path / 'families.json').read_text()) == result
    assert all(len(row[kind]) == 1 for row in result['rows'].values() for kind in LABELS)
    assert '| ViT (DeiT) |' in capsys.readouterr().out
