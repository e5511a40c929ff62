"""The whole pipeline on embedded data: annotate, pretrain with token labels, fine-tune two heads, evaluate.

    tokenlabel demo                        # minutes on two CPU cores
    tokenlabel demo --smallest             # a few steps of each stage: shows that it runs, not how well
    tokenlabel demo --compare --seeds 5    # token labels against other ways to pretrain, hours
    tokenlabel demo --families --seeds 3   # image labels against token labels for six model families, an hour
    tokenlabel demo --photos               # label maps of six photographs by EfficientNet-Lite0, half a minute
    tokenlabel demo --compare-photographs  # ways to pretrain on photographs, by mIoU on CamVid, many hours

Each stage prints the command it runs, and leaves its log and results in the work dir.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tokenlabel.cli.boundary import reports_errors
from tokenlabel.cli.parser import Parser, positive
from tokenlabel.demo.comparison import compare
from tokenlabel.demo.families import compare_families
from tokenlabel.demo.photographs import ANNOTATOR, annotate_photographs
from tokenlabel.demo.photographs_comparison import LENGTHS, compare_photographs
from tokenlabel.demo.pictures import draw_pictures
from tokenlabel.demo.stages import FAMILIES, FULL, SMALLEST, Stages
from tokenlabel.files.output_checks import check_output_folder
from tokenlabel.files.writing import write_atomically
from tokenlabel.processes.signals import when_stopped


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog='tokenlabel demo', description=__doc__)
    parser.add_argument('--work-dir', type=Path, help='where to write (work_dirs/ demo, comparison or families)')
    parser.add_argument('--smallest', action='store_true', help='a few steps of everything')
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument('--compare', action='store_true', help='compare ways to pretrain instead')
    instead.add_argument('--families', action='store_true', help='compare labels for six families of networks instead')
    instead.add_argument('--photos', action='store_true', help='annotate photographs instead (extra `photos`)')
    instead.add_argument(
        '--compare-photographs', action='store_true', help='compare ways to pretrain on photographs instead'
    )
    parser.add_argument('--epochs', type=int, nargs='+', choices=LENGTHS, default=list(LENGTHS), help='of photographs')
    parser.add_argument('--annotator-checkpoint', help="weights of the photographs' annotator (default: downloaded)")
    parser.add_argument('--seeds', type=positive, default=3, help='runs of every row of a comparison')
    parser.add_argument('--jobs', type=positive, default=2, help='runs of a comparison at a time, one thread each')
    return parser.parse_args(arguments)


def run_demo(stages: Stages) -> dict:
    """All stages in order; returns what the table shows."""
    seconds, started = {}, time.monotonic()

    def timed(name: str, stage, *args):
        begin = time.monotonic()
        result = stage(*args)
        seconds[name] = round(time.monotonic() - begin, 1)
        return result

    timed('draw scenes', stages.draw_scenes)
    annotator = timed('train annotator', stages.train_annotator)
    timed('annotate', stages.annotate)
    pretrained = timed('pretrain', stages.pretrain)
    segmentation = {head: timed(f'fine-tune {head}', stages.segment, head) for head in ('upernet', 'fpn')}
    timed('pictures', draw_pictures, stages)
    return {
        'annotator_top1': annotator['top1'],
        'lvvit_top1': pretrained['top1'],
        'upernet_mIoU': segmentation['upernet']['mIoU'],
        'fpn_mIoU': segmentation['fpn']['mIoU'],
        'seconds': seconds,
        'total_seconds': round(time.monotonic() - started, 1),
    }


def print_report(report: dict, work_dir: Path) -> None:
    """One table: what was reached, and how long each stage took."""
    seconds = report['seconds']
    table = Table(title='Token labeling on digit scenes')
    for column, justify in (('stage', 'left'), ('result', 'left'), ('seconds', 'right')):
        table.add_column(column, justify=justify)
    results = {
        'train annotator': f'top-1 {report["annotator_top1"]:.1f} %',
        'pretrain': f'top-1 {report["lvvit_top1"]:.1f} %',
        'fine-tune upernet': f'mIoU {report["upernet_mIoU"]:.1f} %',
        'fine-tune fpn': f'mIoU {report["fpn_mIoU"]:.1f} %',
    }
    for stage, duration in seconds.items():
        table.add_row(stage, results.get(stage, ''), f'{duration:.0f}')
    table.add_row('in all', '', f'{report["total_seconds"]:.0f}', style='bold')
    Console().print(table)
    print(f'report and pictures: {work_dir}')


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    if args.photos:
        work_dir = args.work_dir or Path('work_dirs/photos')
        check_output_folder(work_dir)
        print(annotate_photographs(Stages(work_dir, FULL)))
        return 0
    if args.compare_photographs:
        work_dir = args.work_dir or Path('work_dirs/photographs')
        check_output_folder(work_dir)
        annotator = ['--annotator', ANNOTATOR]
        if args.annotator_checkpoint:
            annotator += ['--checkpoint', args.annotator_checkpoint]
        with when_stopped(lambda: 'the same command resumes, finished runs are kept.'):
            budget = SMALLEST if args.smallest else FULL
            compare_photographs(work_dir, budget, annotator, args.seeds, args.jobs, tuple(args.epochs))
        return 0
    if args.compare or args.families:
        run, name, budget = compare, 'comparison', FULL
        if args.families:
            run, name, budget = compare_families, 'families', FAMILIES
        work_dir = args.work_dir or Path('work_dirs', name)
        check_output_folder(work_dir)
        with when_stopped(lambda: 'the same command resumes, finished runs are kept.'):
            run(work_dir, SMALLEST if args.smallest else budget, args.seeds, args.jobs)
        return 0
    work_dir = args.work_dir or Path('work_dirs/demo')
    check_output_folder(work_dir)
    report = run_demo(Stages(work_dir, SMALLEST if args.smallest else FULL))
    write_atomically(work_dir / 'report.json', json.dumps(report, indent=2) + '\n')
    print_report(report, work_dir)
    return 0
