"""`tokenlabel COMMAND ...`, also as `python -m tokenlabel COMMAND ...`. Only the command's own file is imported."""

import difflib
import importlib
import sys
from collections.abc import Sequence

from tokenlabel import __version__
from tokenlabel.cli.boundary import reports_errors
from tokenlabel.errors import UserError

COMMANDS = {
    'annotate': 'write the score maps of a machine annotator into a label store',
    'inspect': 'show what the images and masks of a config hold',
    'train': 'pretrain with token labels, or fine-tune a segmentation model',
    'test': 'evaluate a checkpoint',
    'segment': 'segment images and videos with a trained model',
    'labels': 'inspect, verify, import, merge and subset label stores',
    'convert': 'write a checkpoint in the names of another project',
    'benchmark': 'time this project against the straightforward way',
    'demo': 'run the whole pipeline on embedded data, in minutes on a CPU',
}
HELP = f"""usage: tokenlabel COMMAND [options]

Pretrain vision transformers with token labeling and fine-tune them for semantic segmentation.

commands:
{chr(10).join(f'  {name:<10} {line}' for name, line in COMMANDS.items())}

examples:
  tokenlabel demo --smallest
  tokenlabel annotate data/imagenet/train data/imagenet_labels --annotator dm_nfnet_f6
  tokenlabel train pretrain_lvvit_s --dry-run
  tokenlabel train upernet_lvvit --data data/ade/ADEChallengeData2016

`tokenlabel COMMAND --help` has the options of a command."""


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status.

    Raises:
        UserError: there is no such command.
    """
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ['']
    if name in ('-h', '--help'):
        print(HELP)
        return 0
    if name == '--version':
        print(__version__)
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        what = f'There is no command {name!r}' if name else 'No command is given'
        hint = f'did you mean `tokenlabel {near[0]}`?' if near else '`tokenlabel --help` lists the commands.'
        raise UserError(f'{what}: {hint}')
    importlib.import_module('tokenlabel.models')  # registers them with timm
    return importlib.import_module(f'tokenlabel.cli.{name}').main(rest)


if __name__ == '__main__':
    sys.exit(main())
