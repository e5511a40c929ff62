"""configs/custom.py with its three lines changed: your own folders train, test, and are refused in one sentence."""

import pytest
from mmengine.config import Config

from tests.segmentation_layouts import own_data, write_pair
from tests.tiny_segmentation import own_config

pytestmark = pytest.mark.distributions


def test_a_copy_with_three_lines_changed_trains_and_tests(run_here, tmp_path):
    own_data(tmp_path / 'data')
    weighted = "model['decode_head']['loss_decode'] = dict(class_weight='auto')"
    tiny = own_config(tmp_path, ['wall', 'floor', 'door'], weighted)
    work_dir = tmp_path / 'run'

    done = run_here('train', tiny, '--work-dir', work_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout for name in ('mIoU', 'wall', 'floor', 'door'))
    assert '| floor |' in (work_dir / 'data.md').read_text() and (work_dir / 'data.png').is_file()
    written = Config.fromfile(work_dir / 'tiny.py').model
    assert written.num_classes == 3 and len(written.decode_head.loss_decode.class_weight) == 3
    done = run_here('test', tiny, work_dir / 'iter_1.pth', '--work-dir', work_dir / 'test')
    assert done.returncode == 0, done.stderr

    write_pair(tmp_path / 'data/images/val/a.png', tmp_path / 'data/masks/val/a.png', (3,), 0, (20, 20))
    done = run_here('test', tiny, work_dir / 'iter_1.pth', '--work-dir', work_dir)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f'error: Annotation {tmp_path}/data/masks/val/a.png holds id 3 in 400'
    )
