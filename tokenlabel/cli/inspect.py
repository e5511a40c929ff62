"""Report the contents of a segmentation config's images and masks before training.

    tokenlabel inspect configs/mine.py
    tokenlabel inspect upernet_lvvit --data data/ade/ADEChallengeData2016 --out ade

Writes `data.md` (image sizes, pixels and images per class, ignored pixels, warnings) and `data.png` (images with their
masks in the colours of the classes).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tokenlabel.cli.boundary import reports_errors
from tokenlabel.cli.parser import Parser
from tokenlabel.cli.training_flags import add_test_flags, test_options
from tokenlabel.engine.config.run_config import add_run_arguments, explains_errors, load_run_config
from tokenlabel.errors import UserError
from tokenlabel.files.output_checks import check_output_folder


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog='tokenlabel inspect', description=__doc__)
    parser.add_argument('config', type=Path, help='config file, or name of a shipped config')
    parser.add_argument('--out', type=Path, help='folder to write to (default: the work dir)')
    add_test_flags(parser)
    add_run_arguments(parser)
    return parser.parse_args(arguments)


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    args.cfg_options = test_options(args)
    config = load_run_config(args)
    if config.get('default_scope') != 'mmseg':
        raise UserError(f'{args.config} trains a classifier, which has no masks: give a segmentation config.')
    from mmseg_ext.checks.data_report import as_markdown, write_data_report

    folder = args.out or Path(config.work_dir)
    check_output_folder(folder)
    with explains_errors(args.config, config):
        print(as_markdown(write_data_report(config, folder)))
    print(f'{folder}/data.md, {folder}/data.png')
    return 0
