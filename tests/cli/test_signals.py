"""Ctrl-C and SIGTERM in tools: one line that says what remains, the status of the signal, no temporary files."""

import importlib
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.child_process import ForkedCommand
from tests.commands import command, run_command
from tests.places import ROOT
from tests.segmenters import convolution_config, write_checkpoint
from tokenlabel.engine.runner import Runner
from tokenlabel.files.writing import is_temporary
from tokenlabel.labels.annotator.inference import Inference

RNG = np.random.default_rng(0)
STOPS = pytest.mark.parametrize(
    ('number', 'status', 'stopped'), [(signal.SIGINT, 130, 'Stopped'), (signal.SIGTERM, 143, 'Stopped by SIGTERM')]
)


def last_line(text: str) -> str:
    assert 'Traceback' not in text and 'Exception ignored' not in text, text
    return text.rstrip().splitlines()[-1]


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob('*') if is_temporary(path)]


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / 'images'
    for number in range(8):
        path = folder / 'ab'[number % 2] / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    return folder


@pytest.mark.parametrize('group', [False, True])  # True: the workers get the signal, too
@STOPS
def test_annotate_says_how_far_it_is_and_resumes_to_the_same_bytes(
    images, tmp_path, monkeypatch, number, status, stopped, group
):
    torch.manual_seed(0)
    torch.save({'state_dict': timm.create_model('test_resnet', num_classes=3).state_dict()}, tmp_path / 'w.pth')
    options = ['--annotator', 'test_resnet', '--checkpoint', tmp_path / 'w.pth', '--img-size', 64, '--k', 2]
    options = [str(word) for word in [*options, '--batch-size', 2, '--workers', 2, '--device', 'cpu']]
    annotate, real, batches = command('annotate'), Inference.__call__, []

    def slow(self, pixels, sizes):
        batches.append(len(pixels))
        if len(batches) > 1:
            while not (tmp_path / 'store/progress-00000').stat().st_size:
                time.sleep(0.01)
            (tmp_path / 'works').touch()
            time.sleep(30)
        return real(self, pixels, sizes)

    with monkeypatch.context() as patched:
        patched.setattr(Inference, '__call__', slow)
        child = ForkedCommand(tmp_path, annotate.main, [str(images), str(tmp_path / 'store'), *options])
        child.wait_until((tmp_path / 'works').exists)
        child.signal(number, group=group)
        assert child.wait() == status, child.errors
    line = last_line(child.errors)
    assert line.startswith(f'{stopped}: ') and line.endswith(' of 8 images are done, run the same command to resume.')
    assert temporary_files(tmp_path) == []
    for store in ('store', 'straight'):
        assert run_command('annotate', images, tmp_path / store, *options[:-3], 0, '--device', 'cpu') == 0
    one, other = ({file.name: file.read_bytes() for file in (tmp_path / s).iterdir()} for s in ('store', 'straight'))
    assert one == other


@STOPS
def test_segment_says_how_many_images_are_done_and_keeps_them(images, tmp_path, monkeypatch, number, status, stopped):
    config = convolution_config(num_classes=10)
    config.dump(tmp_path / 'config.py')
    checkpoint = write_checkpoint(config, tmp_path / 'c.pth')
    segment, out = command('segment'), tmp_path / 'out'
    real, seen = segment.Segmenter.__call__, []

    def slow(self, image):
        seen.append(image)
        if len(seen) == 4:
            (tmp_path / 'works').touch()
            time.sleep(30)
        return real(self, image)

    monkeypatch.setattr(segment.Segmenter, '__call__', slow)
    line = [images, '--config', tmp_path / 'config.py', '--checkpoint', checkpoint, '--out', out, '--device', 'cpu']
    child = ForkedCommand(tmp_path, segment.main, [str(word) for word in line])
    child.wait_until((tmp_path / 'works').exists)
    child.signal(number)
    assert child.wait() == status, child.errors
    assert (
        last_line(child.errors) == f'{stopped}: 3 of 8 images are in {out}, without areas.csv; run the command again.'
    )
    assert temporary_files(out) == [] and not (out / 'areas.csv').exists()
    assert len(list((out / 'labels').rglob('*.png'))) == 3


@STOPS
def test_a_stopped_test_writes_no_scores(scenes, tmp_path, monkeypatch, number, status, stopped):
    test = command('test')
    config = ROOT / 'configs/demo/pretrain.py'
    sizes = [f'model.network.{size}' for size in ('embed_dim=32', 'depth=1', 'num_heads=1', 'stem_width=8')]
    options = [f'test_dataloader.dataset.root={scenes}/imagenet/val', *sizes, 'log_level=ERROR']

    def slow(runner):
        (tmp_path / 'works').touch()
        time.sleep(30)

    monkeypatch.setattr(Runner, 'test', slow)
    monkeypatch.setattr(test.TokenLabelClassifier, 'load_trained', lambda *_: None)
    line = [config, tmp_path / 'none.pth', '--out', tmp_path / 'metrics.json', '--work-dir', tmp_path / 'run']
    child = ForkedCommand(tmp_path, test.main, [*map(str, line), '--cfg-options', *options])
    child.wait_until((tmp_path / 'works').exists)
    child.signal(number)
    assert child.wait() == status, child.errors
    assert last_line(child.errors) == f'{stopped}: no scores were written.'
    assert not (tmp_path / 'metrics.json').exists() and temporary_files(tmp_path) == []


def test_a_stopped_comparison_ends_the_runs_at_work_and_begins_no_others(tmp_path, monkeypatch):
    demo_stages = importlib.import_module('tokenlabel.demo.stages')
    monkeypatch.setattr(demo_stages, 'COMMAND', ['bash', '-c', f'touch {tmp_path}/run$$; exec sleep 30'])

    def compare() -> None:
        stages = demo_stages.Stages(tmp_path, demo_stages.SMALLEST, say=lambda line: None)
        with demo_stages.concurrent_runs(2) as pool:
            list(pool.map(lambda run: stages._run(f'run{run}', []), range(6)))

    child = ForkedCommand(tmp_path, command('annotate').reports_errors(compare))
    child.wait_until(lambda: len(list(tmp_path.glob('run*'))) == 2)
    child.signal(signal.SIGTERM)
    assert child.wait() == 143, child.errors
    assert len(list(tmp_path.glob('run*'))) == 2
