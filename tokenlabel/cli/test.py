"""Evaluate a checkpoint with the config it was trained with.

    tokenlabel test upernet_lvvit work_dirs/upernet_lvvit/iter_160000.pth --tta
    tokenlabel test upernet_lvvit work_dirs/upernet_lvvit/iter_160000.pth --report reports/upernet_lvvit
    tokenlabel test pretrain_lvvit_s lvvit_s-26M-224-83.3.pth.tar --real --out metrics.json
    tokenlabel test pretrain_lvvit_s lvvit_s-26M-224-83.3.pth.tar \\
        --cfg-options test_dataloader.dataset.root=data/imagenetv2-matched-frequency-format-val
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process

from tokenlabel.cli.boundary import reports_errors
from tokenlabel.cli.parser import Parser
from tokenlabel.cli.training_flags import add_test_flags, test_options
from tokenlabel.data.imagenet_real import real_labels
from tokenlabel.data.images import LabeledImages
from tokenlabel.engine.classifier import TokenLabelClassifier
from tokenlabel.engine.config.run_config import add_run_arguments, explains_errors, load_run_config
from tokenlabel.engine.metrics import ReassessedTopK
from tokenlabel.engine.run_folder import folder_errors
from tokenlabel.engine.runner import Runner
from tokenlabel.errors import UserError
from tokenlabel.files.output_checks import check_output_file, check_output_folder
from tokenlabel.files.writing import write_json
from tokenlabel.processes.launch_environment import launched_place
from tokenlabel.processes.signals import when_stopped


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog='tokenlabel test', description=__doc__)
    parser.add_argument('config', type=Path, help='config file')
    parser.add_argument('checkpoint', type=Path, help='weights to evaluate')
    parser.add_argument('--out', type=Path, help='write the metrics to this JSON file')
    parser.add_argument('--tta', action='store_true', help='average over scales and mirrored images (segmentation)')
    parser.add_argument(
        '--report',
        nargs='?',
        const='',
        metavar='FOLDER',
        help='write class scores, confusion matrix and worst images to FOLDER (segmentation; default: WORK_DIR/report)',
    )
    parser.add_argument(
        '--real',
        nargs='?',
        const='timm',
        metavar='FILE',
        help='also evaluate on the ImageNet-ReaL labels (real/top1) of timm, or of this real.json',
    )
    add_test_flags(parser)
    add_run_arguments(parser)
    return parser.parse_args(arguments)


def use_test_time_augmentation(config: Config, path: Path) -> None:
    """Wraps the model in the config's `tta_model` and sets its `tta_pipeline`."""
    if 'tta_model' not in config or 'tta_pipeline' not in config:
        raise UserError(f'Config {path} has no tta_model and tta_pipeline: leave out --tta, or add them.')
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    if config.tta_model.type == 'SegTTAModel' and config.model.type == 'BatchedEncoderDecoder':
        config.model.setdefault('test_cfg', ConfigDict()).keep_logits = True  # SegTTAModel averages the logits
    config.model = ConfigDict(**config.tta_model, module=config.model)


def score_real_labels(runner: Runner, file: str | None) -> None:
    """Adds accuracy on the ImageNet-ReaL labels to the metrics."""
    model = getattr(runner.model, 'module', runner.model)
    dataset = runner.test_loop.dataloader.dataset
    if not isinstance(model, TokenLabelClassifier) or not isinstance(dataset, LabeledImages):
        raise UserError('--real is only for ImageNet classifiers: leave it out.')
    right_classes = real_labels(dataset, model.class_names, model.num_classes, file)
    runner.test_loop.evaluator.metrics.append(ReassessedTopK(right_classes))


def evaluate_classifier(config: Config, args: argparse.Namespace) -> dict[str, float]:
    """Evaluates a classifier."""
    runner = Runner.from_cfg(config)
    model = getattr(runner.model, 'module', runner.model)
    if isinstance(model, TokenLabelClassifier):
        model.load_trained(args.checkpoint)
    else:
        runner.load_checkpoint(str(args.checkpoint))
    if args.real:
        score_real_labels(runner, None if args.real == 'timm' else args.real)
    return scores_of(runner)


def evaluate_segmentor(config: Config, args: argparse.Namespace) -> dict[str, float]:
    """Evaluates a segmentation model, and writes the report if requested."""
    # imported here, because pretraining does not need MMSegmentation
    from mmseg_ext.checkpoints.evaluated_weights import load_trained_weights
    from mmseg_ext.checks.class_weight import settle_class_weight
    from mmseg_ext.checks.datasets import check_datasets
    from mmseg_ext.evaluation.report import check_report, measure_confusions, report_on

    folder = None if args.report is None else Path(args.report or Path(config.work_dir, 'report'))
    if folder is not None:
        measure_confusions(config, args.config)
        if launched_place(args.launcher).rank == 0:
            check_report(folder)
    check_datasets(config, splits=('test',))
    settle_class_weight(config, train=False)
    runner = Runner.from_cfg(config)
    load_trained_weights(runner, args.checkpoint)
    metrics = scores_of(runner)
    if folder is not None and is_main_process():
        about = {'config': str(args.config), 'checkpoint': str(args.checkpoint), 'test_time_augmentation': args.tta}
        report_on(runner, folder, metrics, about)
        print(f'The report is in {folder}: classes.md, confusion.png, worst_images.png and the numbers.')
    return metrics


def scores_of(runner: Runner) -> dict[str, float]:
    """Runs the test loop; returns the scores by name."""
    with folder_errors(runner.work_dir):
        return {name: float(value) for name, value in runner.test().items()}


def check_outputs(config: Config, args: argparse.Namespace) -> None:
    """Checks before the test that all output files can be written.

    Raises:
        UserError: one of them cannot be written.
    """
    check_output_folder(config.work_dir)
    if args.out:
        check_output_file(args.out)
    evaluators = config.get('test_evaluator') or []
    for metric in [evaluators] if isinstance(evaluators, dict) else evaluators:
        if metric.get('output_dir'):
            check_output_folder(metric.output_dir)


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    args.cfg_options = test_options(args)
    config = load_run_config(args)
    # initial weights of the training are not needed, because the checkpoint replaces them
    config.load_from, config.resume, config.initial_weights = None, False, None
    if args.tta:
        use_test_time_augmentation(config, args.config)
    segmentation = config.get('default_scope') == 'mmseg'
    if args.report is not None and not segmentation:
        raise UserError(f'--report is only for segmentation, but {args.config} trains a classifier: leave it out.')
    if args.real and segmentation:
        raise UserError('--real is only for ImageNet classifiers: leave it out.')
    if launched_place(args.launcher).rank == 0:
        check_outputs(config, args)
    with when_stopped(lambda: 'no scores were written.'), explains_errors(args.config, config):
        metrics = evaluate_segmentor(config, args) if segmentation else evaluate_classifier(config, args)
    if args.out and is_main_process():
        write_json(args.out, metrics)
    return 0
