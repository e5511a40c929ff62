"""configs/custom.py with its three lines changed: your own folders train, test, and are refused in one sentence."""

import pytest
from mmengine.config import Config

from tests import tiny_segmentation
from tests.conftest import ROOT
from tests.segmentation_layouts import own_data, write_pair

pytestmark = pytest.mark.distributions


def test_a_copy_with_three_lines_changed_trains_and_tests(run_here, tmp_path):
    own_data(tmp_path / 'data')
    text = (ROOT / 'configs/custom.py').read_text()
    for old, new in (
        ("images = 'data/mine/images'", f"images = '{tmp_path}/data/images'"),
        ("masks = 'data/mine/masks'", f"masks = '{tmp_path}/data/masks'"),
        ("['background', 'leaf', 'fruit']", "['wall', 'floor', 'door']"),
        ("'_base_/", f"'{ROOT}/configs/_base_/"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / 'mine.py').write_text(text)
    weighted = "model['decode_head']['loss_decode'] = dict(class_weight='auto')"
    (tmp_path / 'tiny.py').write_text(f"_base_ = ['mine.py']\n{tiny_segmentation.TEXT}\n{weighted}\n")
    work_dir = tmp_path / 'run'

    done = run_here('train', tmp_path / 'tiny.py', '--work-dir', work_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout for name in ('mIoU', 'wall', 'floor', 'door'))
    assert '| floor |' in (work_dir / 'data.md').read_text() and (work_dir / 'data.png').is_file()
    written = Config.fromfile(work_dir / 'tiny.py').model
    assert written.num_classes == 3 and len(written.decode_head.loss_decode.class_weight) == 3
    done = run_here('test', tmp_path / 'tiny.py', work_dir / 'iter_1.pth', '--work-dir', work_dir / 'test')
    assert done.returncode == 0, done.stderr

    write_pair(tmp_path / 'data/images/val/a.png', tmp_path / 'data/masks/val/a.png', (3,), 0, (20, 20))
    done = run_here('test', tmp_path / 'tiny.py', work_dir / 'iter_1.pth', '--work-dir', work_dir)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f'error: Annotation {tmp_path}/data/masks/val/a.png holds id 3 in 400'
    )
