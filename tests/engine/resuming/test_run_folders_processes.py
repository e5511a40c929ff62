"""Both stages in two processes: what a run resumes from is left alone, executes nothing, and the config counts."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config.utils import MODULE2PACKAGE

from tests.engine.resuming import conftest
from tests.engine.resuming.test_config_counts import rates, said, schedule
from tests.training_processes import CONFIG, overridden, settings, train, train_in_two_processes

pytestmark = [pytest.mark.slow, pytest.mark.distributions]


@pytest.fixture
def options(request, scenes, label_store, tmp_path):
    """Options of a run of a stage, in a folder of that name."""

    def options(folder: str, iterations: int, **more) -> dict:
        own = {
            'train_cfg.max_iters': iterations,
            'train_cfg.val_interval': 2,
            'param_scheduler': schedule(iterations),
            'default_hooks.checkpoint.interval': 2,
            'default_hooks.checkpoint.max_keep_ckpts': 1,
            'default_hooks.logger.interval': 1,
            'log_level': 'WARNING',
            'visualizer.vis_backends': [{'type': 'LocalVisBackend'}],
        }
        if request.param == 'pretraining':
            return settings(scenes, label_store, tmp_path / folder, **own | more)
        return overridden(conftest.segmentation_settings(scenes, tmp_path / folder), own | more)

    return options


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize(
    ('options', 'config'),
    [('pretraining', CONFIG), ('segmentation', conftest.CONFIG)],
    indirect=['options'],
    ids=['pretraining', 'segmentation'],
)
def test_two_processes_resume_from_another_folder_and_in_a_copy_and_touch_nothing_else(
    options, config, tmp_path, monkeypatch
):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', MODULE2PACKAGE['mmseg'])
    for folder, iterations in (('one', 4), ('whole', 6)):
        train(options(folder, iterations), path=config)
    one, precious = tmp_path / 'one', tmp_path / 'precious'
    shutil.copytree(one, tmp_path / 'copy')
    precious.mkdir()
    for path in (one / 'iter_4.pth', tmp_path / 'copy/iter_4.pth'):
        checkpoint = torch.load(path, weights_only=False)
        code = f'import os\nos.mkdir({str(tmp_path / "executed")!r})\n'
        checkpoint['meta'] |= {'config': code, 'experiment_name': code}
        own = {'best_ckpt': str(precious), 'best_score': -1.0, 'last_ckpt': str(precious), 'keep_ckpt_ids': [2, 4]}
        checkpoint['message_hub']['runtime_info'] |= own | {'cfg': code}
        torch.save(checkpoint, path)
    kept = contents(one)
    other = options('other', 6, resume=True, load_from=str(one / 'iter_4.pth'))
    train_in_two_processes([other, options('copy', 6, resume=True)], config)
    assert contents(one) == kept and precious.is_dir() and not (tmp_path / 'executed').exists()
    for folder in (tmp_path / 'other', tmp_path / 'copy'):
        assert [path.name for path in folder.glob('iter_*')] == ['iter_6.pth']
        assert (folder / 'last_checkpoint').read_text() == 'iter_6.pth'
        assert [rates(folder)[step] for step in (5, 6)] == [rates(tmp_path / 'whole')[step] for step in (5, 6)]
        [line] = said(folder)
        assert (
            'train_cfg.max_iters 4 -> 6' in line
            and 'param_scheduler.1.end 4 -> 6' in line
            and 'processes 1 -> 2' in line
        )
