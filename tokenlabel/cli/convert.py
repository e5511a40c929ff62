"""Convert the weights of a checkpoint to the parameter names of another project, and list the changes.

    tokenlabel convert work_dirs/pretrain_lvvit_s/iter_387500.pth lvvit_s.safetensors --to timm
    tokenlabel convert lvvit_s-26M-224-83.3.pth.tar lvvit_s.pth --to ours
    tokenlabel convert upernet_lvvit_s.pth ours.pth --to ours --config released/upernet_lvvit_s
    tokenlabel convert work_dirs/upernet_lvvit/iter_160000.pth upernet.safetensors --to safetensors

The source may be a checkpoint of this project (pretraining or segmentation, with or without EMA weights), weights of
timm, a released classifier or segmentation model, or a safetensors file.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from tokenlabel.checkpoints.conversion import LAYOUTS, Weights, check_target, classifier_in, fit, read_weights, save
from tokenlabel.cli.boundary import reports_errors
from tokenlabel.cli.parser import Parser
from tokenlabel.engine.classifier import create_network
from tokenlabel.engine.config.run_config import explains_errors, load_config, register_imports
from tokenlabel.errors import UserError
from tokenlabel.files.output_checks import check_output_file


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog='tokenlabel convert', description=__doc__)
    parser.add_argument('source', type=Path, help='checkpoint in any layout')
    parser.add_argument('target', type=Path, help='file to write; with the suffix .safetensors in that format')
    parser.add_argument('--to', choices=LAYOUTS, required=True, help='layout of the target')
    parser.add_argument('--raw', action='store_true', help='use the raw weights even if the file has EMA weights')
    parser.add_argument(
        '--config',
        type=Path,
        help='check that all weights match the model of this config, and resample position embeddings to its size',
    )
    return parser.parse_args(arguments)


def fit_to_config(weights: Weights, path: Path) -> None:
    """Fits the weights to the model of a config for pretraining or segmentation."""
    config = load_config(path)
    register_imports(config)
    with explains_errors(path, config):
        if weights.is_segmentation:
            fit_segmentation_to(weights, config, path)
        else:
            fit_classifier_to(weights, config, path)


def fit_segmentation_to(weights: Weights, config: Config, path: Path) -> None:
    from mmseg.registry import MODELS

    from mmseg_ext.checkpoints.segmentation_weights import fit_segmentation
    from mmseg_ext.checks.class_weight import settle_class_weight
    from mmseg_ext.checks.num_classes import settle_num_classes

    if 'decode_head' not in config.model:
        raise UserError(
            f'{weights.source} is a segmentation model but {path} trains a classifier: give the config of the model'
        )
    settle_num_classes(config)
    settle_class_weight(config, train=False)
    fit_segmentation(weights, MODELS.build(config.model))


def fit_classifier_to(weights: Weights, config: Config, path: Path) -> None:
    if 'network' not in config.model:
        raise UserError(
            f'{weights.source} is a classifier but {path} does not train one: give the config of the classifier'
        )
    network = dict(config.model.network, pretrained=False)
    architecture = network['model_name'].split('.')[0]
    noted = weights.noted.setdefault('architecture', architecture)
    if noted != architecture:
        raise UserError(
            f'{weights.source} contains weights of {noted} but {path} trains {architecture}: give its config'
        )
    fit(weights, create_network(token_head='aux_head.weight' in weights.state, **network))


def described(weights: Weights) -> str:
    """A short description of the weights."""
    if weights.is_segmentation:
        return 'a segmentation model'
    return f'a classifier, {weights.noted["architecture"]}' if 'architecture' in weights.noted else 'a classifier'


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    check_output_file(args.target)
    weights = read_weights(args.source, averaged=not args.raw)
    check_target(args.target, args.to, args.source)
    print(f'{args.source}: {described(weights)}')
    if args.config:
        fit_to_config(weights, args.config)
    if weights.is_segmentation:
        # imported here, because classifiers do not need MMSegmentation
        from mmseg_ext.checkpoints.segmentation_weights import segmentation_in

        content = segmentation_in(weights, args.to)
    else:
        content = classifier_in(weights, args.to)
    written = save(args.target, content)
    for step in weights.steps:
        print(f'  {step}')
    numbers = sum(x.numel() for x in weights.state.values())
    print(f'{args.target}: {len(weights.state)} tensors, {numbers / 1e6:.2f} M numbers, {written / 1e6:.1f} MB')
    return 0
