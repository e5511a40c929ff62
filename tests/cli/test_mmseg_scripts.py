"""Our configs under MMSegmentation's own train.py and test.py, without our Runner and tools."""

from pathlib import Path

import mmseg
import pytest

from tests import tiny_segmentation
from tests.conftest import ROOT
from tests.segmentation_layouts import ade20k

pytestmark = pytest.mark.distributions

# MMEngine lets a schedule end with the training, too, but takes the warm-up as it is.
SCHEDULE = "param_scheduler = [dict(type='PolyLR', by_epoch=False)]"
SCRIPTS = Path(mmseg.__file__).parent / '.mim/tools'


@pytest.mark.slow
def test_a_config_trains_validates_and_tests_at_several_scales(run_tool, tmp_path):
    ade20k(tmp_path / 'ade')
    config, work_dir = tmp_path / 'tiny.py', tmp_path / 'run'
    config.write_text(f"_base_ = ['{ROOT}/configs/upernet_lvvit_t.py']\n{tiny_segmentation.TEXT}\n{SCHEDULE}")
    roots = [f'{split}_dataloader.dataset.data_root={tmp_path}/ade' for split in ('train', 'val', 'test')]
    # MMEngine's mixed precision wants a GPU.
    options = ['--work-dir', work_dir, '--cfg-options', 'optim_wrapper.type=OptimWrapper', *roots]

    def run(script: str, *arguments) -> str:
        done = run_tool(SCRIPTS / script, config, *arguments, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert 'mIoU' in run('train.py')
    assert 'mIoU' in run('test.py', work_dir / 'iter_1.pth', '--tta', '--out', tmp_path / 'predictions')
    assert len(list((tmp_path / 'predictions').iterdir())) == 2
