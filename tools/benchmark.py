#!/usr/bin/env python
"""Times what this project does against the straightforward way, both in the same run.

python tools/benchmark.py labels  # annotating, storing and reading label maps: label store against a file per image
python tools/benchmark.py loader  # from image files to training batches: this loader against torchvision's transforms
python tools/benchmark.py loss    # token targets and their loss: sparse against dense
python tools/benchmark.py segment # evaluating a segmentation model: batched windows against MMSegmentation's own
python tools/benchmark.py step    # a whole training step, compiled or not, against the plainest one
"""

import sys

from tokenlabel.errors import reports_errors

from benchmark_labels import add_labels_arguments, benchmark_labels
from benchmark_loader import add_loader_arguments, benchmark_loader
from benchmark_loss import add_loss_arguments, benchmark_loss
from benchmark_segment_arguments import add_segment_arguments
from benchmark_step import add_step_arguments, benchmark_step
from command_line import Parser


@reports_errors
def main(arguments: list[str] | None = None) -> int:
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest='what', required=True)
    add_labels_arguments(commands.add_parser('labels'))
    add_loader_arguments(commands.add_parser('loader'))
    add_loss_arguments(commands.add_parser('loss'))
    add_segment_arguments(commands.add_parser('segment'))
    add_step_arguments(commands.add_parser('step'))
    args = parser.parse_args(arguments)
    if args.what == 'segment':
        # here, as the others do without MMSegmentation
        from benchmark_segment import benchmark_segment

        benchmark_segment(args)
        return 0
    benchmarks = {
        'labels': benchmark_labels,
        'loader': benchmark_loader,
        'loss': benchmark_loss,
        'step': benchmark_step,
    }
    benchmarks[args.what](args)
    return 0


if __name__ == '__main__':
    sys.exit(main())
