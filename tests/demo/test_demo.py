"""The whole pipeline at its smallest size, through the commands that users type."""

import json

import pytest

from tests.label_stores import write_store
from tokenlabel.demo.stages import SMALLEST, Stages
from tokenlabel.errors import UserError


def test_a_work_dir_that_holds_something_else_is_refused(run_here, tmp_path):
    (tmp_path / 'scenes').mkdir()
    (tmp_path / 'scenes' / 'other').touch()
    done = run_here('demo', '--smallest', '--work-dir', tmp_path)
    assert done.returncode == 2
    assert 'holds no digit scenes' in done.stderr


@pytest.mark.parametrize('meta', [None, '', '[]', '{"annotator": {"name": "resnet50"}}'])
def test_labels_of_someone_else_are_not_removed(tmp_path, meta):
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'labels/scores.npy').touch()
    if meta is not None:
        (tmp_path / 'labels/meta.json').write_text(meta)
    with pytest.raises(UserError, match='holds no labels of the demo'):
        Stages(tmp_path, SMALLEST).train_annotator()
    assert (tmp_path / 'labels/scores.npy').is_file()


def test_of_labels_of_the_demo_the_files_of_the_store_are_removed_and_no_others(tmp_path):
    labels = tmp_path / 'labels'
    write_store(labels, ['a.jpg', 'b.jpg'], num_classes=10, k=3, grid=8)
    meta = json.loads((labels / 'meta.json').read_text())
    (labels / 'meta.json').write_text(json.dumps(meta | {'annotator': {'name': 'resnet10t'}}))
    stages = Stages(tmp_path, SMALLEST)
    (labels / 'notes.txt').touch()
    with pytest.raises(UserError, match=r'holds notes\.txt beside the labels of the demo'):
        stages.remove_labels()
    assert (labels / 'scores-00000.npy').exists()
    (labels / 'notes.txt').unlink()
    stages.remove_labels()
    assert not labels.exists()
