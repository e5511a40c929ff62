"""The stages of the demo, each run through the commands that users type."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tokenlabel.data.digit_scenes import write_digit_scenes
from tokenlabel.engine.resuming.checkpoint_files import last_checkpoint
from tokenlabel.errors import UserError
from tokenlabel.files.shipped_configs import PACKAGE
from tokenlabel.files.writing import disk_errors, is_temporary

ANNOTATOR = ('resnet10t', '--model-kwargs', 'channels=[32,64,96,128]', 'stem_width=16', 'output_stride=8')
COMMAND = (sys.executable, '-m', 'tokenlabel')
STORE_FILE = re.compile(r'meta\.json|lock|keys\.npy|(scores|classes|sizes|progress)-\d+(\.\w+)?')
ITERATION = re.compile(r'Iter\(train\) \[ *(\d+)/(\d+)\].*?eta: (\S+).*?  loss: (\S+)')


_running: set[subprocess.Popen] = set()


@dataclass(frozen=True)
class Budget:
    """How much of everything: scenes, and iterations of each training (None: as its config says)."""

    num_train: int = 6000
    num_val: int = 1000
    num_segmentation: int = 2000
    num_segmentation_val: int = 500
    annotator_iterations: int | None = None
    pretrain_iterations: int | None = None
    segmentation_iterations: int | None = None


FULL = Budget()
FAMILIES = Budget(pretrain_iterations=1000)
SMALLEST = Budget(200, 50, 32, 10, annotator_iterations=4, pretrain_iterations=4, segmentation_iterations=4)


class Stages:
    """The pipeline on digit scenes, everything below one folder.

    Args:
        work_dir: receives scenes, labels, runs, logs, pictures and the report.
        budget: how much of everything.
        say: prints a line of progress.
        threads: CPU threads of each command; None leaves it to torch.
    """

    def __init__(
        self, work_dir: Path, budget: Budget, say: Callable[[str], None] = print, threads: int | None = None
    ) -> None:
        self.work_dir = Path(work_dir).absolute()
        self.budget = budget
        self.say = say
        self.threads = threads
        self.scenes = self.work_dir / 'scenes'
        self.labels = self.work_dir / 'labels'

    def draw_scenes(self) -> None:
        """Digit scenes on disk, as an ImageNet folder and in ADE20K's layout."""
        self.say(f'\n> draw scenes into {os.path.relpath(self.scenes)}')
        budget = self.budget
        write_digit_scenes(
            self.scenes, budget.num_train, budget.num_val, budget.num_segmentation, budget.num_segmentation_val
        )

    def train_annotator(self) -> dict:
        """A small CNN that learns from image labels; returns its metrics."""
        self.remove_labels()
        options = [*self._image_options(), *length(self.budget.annotator_iterations)]
        return self.train_and_test('annotator', 'demo/annotator', options)

    def annotate(self) -> None:
        """The annotator's score maps of the training images."""
        arguments = ['annotate', self.scenes / 'imagenet/train', self.labels, '--annotator', *ANNOTATOR]
        arguments += ['--checkpoint', self.checkpoint('annotator'), '--img-size', 64, '--batch-size', 100]
        self._run('annotate', [*arguments, '--workers', 1])

    def annotate_photographs(self, images: Path, annotator: Sequence) -> Path:
        """The score maps of other images, in place of the demo's; returns the store, which a repeated call completes.

        Args:
            images: folder of the images.
            annotator: arguments of `tokenlabel annotate` after images and store.
        """
        self._run('annotate', ['annotate', images, self.labels, *annotator])
        return self.labels

    def pretrain(self, run: str = 'pretrain', options: Sequence[str] = (), config: str = 'demo/pretrain') -> dict:
        """The small LV-ViT, or what the config says; returns its metrics."""
        data = self._elsewhere([f'train_dataloader.dataset.label_store={self.labels}'])
        options = [*self._image_options(), *data, *length(self.budget.pretrain_iterations), *options]
        return self.train_and_test(run, config, options)

    def segment(
        self, head: str, pretrained: str | None = 'pretrain', run: str | None = None, options: Sequence[str] = ()
    ) -> dict:
        """`upernet` or `fpn` over a pretrained run, or from random weights when None; returns its metrics."""
        roots = [f'{loader}_dataloader.dataset.data_root={self.scenes}/ade' for loader in ('train', 'val', 'test')]
        initial = ['model.backbone.init_cfg=None']
        if pretrained:
            initial = [f'model.backbone.init_cfg.checkpoint={self.checkpoint(pretrained)}']
            if self.budget.pretrain_iterations is None:
                initial = self._elsewhere(initial)
        schedules = length(self.budget.segmentation_iterations)
        options = [*self._elsewhere(roots), *initial, *schedules, *options]
        return self.train_and_test(run or head, f'demo/{head}', options)

    def checkpoint(self, run: str) -> Path:
        """The last checkpoint of a run."""
        latest = last_checkpoint(self.work_dir / run)
        if latest is None:
            raise UserError(f'{self.work_dir / run} has no checkpoint: run the stage before it again.')
        return latest

    def remove_labels(self) -> None:
        """Removes the labels of an earlier annotator of the demo.

        Raises:
            UserError: there is something else in their place.
        """
        if not self.labels.exists():
            return
        try:
            annotator = json.loads((self.labels / 'meta.json').read_text())['annotator']['name']
        except (OSError, ValueError, LookupError, TypeError):
            annotator = None
        if annotator != ANNOTATOR[0]:
            raise UserError(f'{self.labels} holds no labels of the demo: choose another --work-dir, or remove it.')
        files = list(self.labels.iterdir())
        if foreign := [file.name for file in files if not STORE_FILE.fullmatch(file.name) and not is_temporary(file)]:
            raise UserError(f'{self.labels} holds {foreign[0]} beside the labels of the demo: move it, or remove it.')
        for file in files:
            file.unlink()
        self.labels.rmdir()

    def train_and_test(self, run: str, config: str, options: Sequence[str]) -> dict:
        """Trains a config into the folder `run` of the work dir and tests its last checkpoint; returns the metrics."""
        folder = self.work_dir / run
        changes = ['--cfg-options', *options] if options else []
        work_dir = self._elsewhere(['--work-dir', str(folder)])
        self._run(f'{run}_train', ['train', config, *work_dir, *changes])
        test = ['test', config, self.checkpoint(run), '--work-dir', folder / 'test']
        self._run(f'{run}_test', [*test, '--out', folder / 'metrics.json', *changes])
        return json.loads((folder / 'metrics.json').read_text())

    def _image_options(self) -> list[str]:
        roots = {'train': 'train', 'val': 'val', 'test': 'val'}
        options = [
            f'{loader}_dataloader.dataset.root={self.scenes}/imagenet/{split}' for loader, split in roots.items()
        ]
        return self._elsewhere(options)

    def _elsewhere(self, options: list[str]) -> list[str]:
        """Options that name places: none in the folder that the demo's configs name themselves."""
        return [] if self.work_dir == Path('work_dirs/demo').absolute() else options

    def _run(self, name: str, command: Sequence) -> None:
        """Runs `tokenlabel` with a command, its output in a log and its progress on the screen."""
        words = [str(word) for word in command]
        shown = [word.removeprefix(f'{Path.cwd()}/') for word in words]
        self.say(f'\n> tokenlabel {shlex.join(shown)}')
        environment = os.environ | {'PYTHONUNBUFFERED': '1'}
        environment['PYTHONPATH'] = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get('PYTHONPATH')]))
        if not torch.cuda.is_available():
            # torch 2.14's fused attention is slower on a CPU where tokens are few: 0.68 s a step with 37, plain 0.50 s
            environment.setdefault('TIMM_FUSED_ATTN', '0')
        if self.threads:
            environment['OMP_NUM_THREADS'] = str(self.threads)
        log = self.work_dir / 'logs' / f'{name.replace("/", "_")}.log'
        with disk_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
        with (
            disk_errors(log),
            open(log, 'w', buffering=1) as file,
            subprocess.Popen(
                [*COMMAND, *words],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            last = ''
            with ended_with_us(process):
                for line in process.stdout:
                    file.write(line)
                    last = line.strip() or last
                    if found := ITERATION.search(line):
                        done, total, eta, loss = found.groups()
                        self.say(f'  iteration {done:>5}/{total}   loss {loss}   {eta} left')
        if process.returncode:
            raise UserError(f'{name} failed ({last}): see {log}.')


@contextmanager
def ended_with_us(process: subprocess.Popen) -> Iterator[None]:
    """Where the block ends early, or `concurrent_runs` is stopped, the process ends as at SIGTERM."""
    _running.add(process)
    try:
        yield
    except BaseException:
        process.terminate()
        raise
    finally:
        _running.discard(process)


@contextmanager
def concurrent_runs(num_jobs: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for runs at a time. After an error no further run begins; Ctrl-C or a signal ends those at work."""
    pool = ThreadPoolExecutor(num_jobs)
    try:
        yield pool
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(_running):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def length(iterations: int | None) -> list[str]:
    """The option that makes a demo training this long."""
    return [] if iterations is None else [f'train_cfg.max_iters={iterations}']
