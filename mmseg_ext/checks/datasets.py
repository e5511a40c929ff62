"""Checks the folders and files of segmentation data sets before training."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS

from mmseg_ext.checks.config_parts import EDGE_HEADS, datasets_of, heads_of, model_of, steps_of
from mmseg_ext.checks.crop import warning_of_large_crop
from mmseg_ext.checks.ignore_index import settle_ignore_index
from mmseg_ext.checks.in_channels import check_statistics, in_channels_of, settle_in_channels
from mmseg_ext.checks.learnable_labels import SampledLabels, check_learnable, many_for
from mmseg_ext.checks.num_classes import settle_num_classes
from mmseg_ext.checks.rank_zero_log import rank_zero_log
from mmseg_ext.datasets.load_label_map import read_label_map, stored_ids
from mmseg_ext.datasets.mask_classes import IGNORED, counted_classes
from mmseg_ext.datasets.read_image import read_size
from tokenlabel.errors import UserError

SAMPLES = 20  # annotations read per data set; each takes some milliseconds
MORE_SAMPLES = 200  # if a class is missing in these
MOST_SAMPLES = 2000  # if fewer than two classes were found
LOADERS = ('LoadImageFromFile', 'LoadAnnotations', 'LoadLabelMap')


def check_datasets(config: Config, splits: tuple[str, ...] = ('train', 'val'), only_here: bool = False) -> None:
    """Checks that a config's images and annotations exist, fit the model and contain classes to learn.

    Every image must have an annotation. Up to `SAMPLES` annotations per data set, evenly spaced, are read as in
    training, to check sizes and ids; ids are not checked if a foreign transform changes them. More annotations are read
    if classes are missing in these. A warning says if no image fills the crop. Wrappers (`ConcatDataset`,
    `RepeatDataset`) are unwrapped. Data sets that are not a `BaseSegDataset` or not on this machine are skipped.

    Args:
        config: A segmentation config whose `custom_imports` are done. Missing values of `ignore_index`, of the model's
            and of LoadLabelMap's `num_classes` are filled in, so that training reads the data as checked.
        splits: Data loaders to check, of `train`, `val` and `test`.
        only_here: Skip data sets whose folder of images or annotations is missing.

    Raises:
        UserError: A folder or list is missing or has no images, an image has no annotation, an annotation does not fit
            its image or the classes, the model's heads have another number of classes, data sets number their classes
            differently, or as `settle_ignore_index`, `settle_in_channels`, `check_statistics` and `check_learnable`.
    """
    settle_num_classes(config)
    settle_in_channels(config)
    check_statistics(config)
    ignored = settle_ignore_index(config)
    classes = {}
    for split in splits:
        samples = []
        for dataset, place, wraps in datasets_of(config, split):
            kind = DATASETS.get(dataset['type']) if isinstance(dataset.get('type'), str) else dataset.get('type')
            is_here = not dataset.get('backend_args') and '://' not in str(dataset.get('data_root'))
            is_here = is_here and (not only_here or is_stored_here(dataset))
            if not wraps and is_here and isinstance(kind, type) and issubclass(kind, BaseSegDataset):
                _check_places(dataset, place)
                samples.append(_check(dataset, place, config, ignored))
                classes[place] = samples[-1].classes
        check_learnable(samples, split)
    _check_same_classes(classes)


def _check_places(dataset: dict, place: str) -> None:
    """Checks that folders and list exist, before the data set's constructor reads them."""
    root = Path(dataset.get('data_root') or '')
    moves = f'put the data set there, or name its place with --cfg-options {place}.data_root=FOLDER'
    for folder in _folders(dataset):
        if not folder.is_dir() or not any(folder.iterdir()):
            raise UserError(f'{folder} is {"empty" if folder.is_dir() else "missing"}: {moves}')
    if dataset.get('ann_file') and not (root / dataset['ann_file']).is_file():
        raise UserError(f'The list of images {root / dataset["ann_file"]} is missing: {moves}')


def _folders(dataset: dict) -> list[Path]:
    """The folders of images and annotations of a data set."""
    root, prefix = Path(dataset.get('data_root') or ''), dataset.get('data_prefix') or {}
    return [root / prefix[name] for name in ('img_path', 'seg_map_path') if prefix.get(name) is not None]


def is_stored_here(dataset: dict) -> bool:
    """Whether the folders of a data set are on this machine."""
    folders = _folders(dataset) or [Path(root) for root in [dataset.get('data_root')] if root]
    return bool(folders) and all(folder.is_dir() for folder in folders)


def _check(dataset: dict, place: str, config: Config, ignored: int) -> SampledLabels:
    """Checks that every image of a data set has an annotation, and that a sample of annotations and the heads fit."""
    built = built_dataset(dataset, place)
    samples = built.data_list
    images = built.data_prefix.get('img_path')
    if not samples:
        reason = f' that {built.ann_file} lists' if built.ann_file else f': there is no {built.img_suffix} file in it'
        raise UserError(f'{images} holds no images{reason}: put the data set there')
    annotated = [sample for sample in samples if 'seg_map_path' in sample]
    listed = [('img_path', 'are missing')] if built.ann_file else []  # otherwise they come from a folder listing
    for key, what in (*listed, ('seg_map_path', 'have no annotation')):
        missing = [sample for sample in annotated if not Path(sample[key]).is_file()]
        if missing:
            raise UserError(
                f'{len(missing)} of {len(samples)} images in {images} {what}, such as '
                f'{", ".join(sample["img_path"] for sample in missing[:3])}: complete '
                f'{Path(missing[0][key]).parent}, or remove these images'
            )
    classes = tuple(built.metainfo.get('classes') or ())
    if not classes and not place.startswith('train'):
        raise UserError(f'{place} has no classes to score: name them, {place}.metainfo=dict(classes=[...]).')
    _check_heads(config, dataset['type'], len(classes))
    folder = str(built.data_prefix.get('seg_map_path'))
    found = SampledLabels(
        place, str(dataset['type']), folder, classes, ignored, built.reduce_zero_label, len(annotated)
    )
    pipelines = [dataset.get('pipeline', []), *([config.get('tta_pipeline')] if place.startswith('test') else [])]
    in_files = classes_in_files(built)
    _settle_num_classes(pipelines, in_files, dataset['type'])
    if _reads_as_stored(dataset.get('pipeline', [])):
        check_statistics(config, [sample['img_path'] for sample in annotated])
        _read(found, annotated, dataset, in_files, in_channels_of(config))
        if place.startswith('train') and (text := warning_of_large_crop(dataset['pipeline'], place, found.shapes)):
            rank_zero_log(text)
    return found


def built_dataset(dataset: dict, place: str) -> BaseSegDataset:
    """Builds a data set with its list of samples.

    Args:
        dataset: Its config.
        place: Path of `dataset` in the whole config.

    Raises:
        UserError: It cannot be built, for example because the numbers of classes and colours differ.
    """
    try:
        built = DATASETS.build(
            {**dataset, 'pipeline': [], 'lazy_init': True, 'test_mode': False, 'serialize_data': False}
        )
        built.full_init()
    except UserError:
        raise
    except (ValueError, AssertionError) as error:  # classes or colours that do not fit together
        raise UserError(f'{place} cannot be built ({str(error)[:300]}): correct its classes and palette.') from error
    return built


def classes_in_files(built: BaseSegDataset) -> int | None:
    """Number of classes in the annotations, which is that of the data set's type; a config may select some of them."""
    return len(type(built).METAINFO.get('classes') or built.metainfo.get('classes') or ()) or None


def evenly_spread(items: Sequence, most: int) -> Sequence:
    """At most `most` of the items, at equal distances from the first on."""
    return items[:: max(1, -(-len(items) // most))]


def _settle_num_classes(pipelines: Sequence, num_classes: int | None, kind: str) -> None:
    """Sets LoadLabelMap's `num_classes` to that of the files, so that it checks every file."""
    for pipeline in pipelines:
        for step, place in steps_of(pipeline):
            if step.get('type') == 'LoadLabelMap' and num_classes:
                if step.get('num_classes') not in (None, num_classes):
                    raise UserError(
                        f'{place} (LoadLabelMap) has num_classes={step["num_classes"]}, but the files of {kind} have '
                        f'{num_classes} classes: leave it out, or make them equal.'
                    )
                step['num_classes'] = num_classes


def _read(
    found: SampledLabels, annotated: list[dict], dataset: dict, in_files: int | None, in_channels: int | None
) -> None:
    """Reads a sample of the annotations, and more of them if classes are missing."""
    spread = [evenly_spread(annotated, count) for count in (SAMPLES, MORE_SAMPLES, MOST_SAMPLES)]
    in_order = {sample['seg_map_path']: sample for some in spread for sample in some}
    keeps_255 = any(step.get('type') == 'LoadAnnotations' for step, _ in steps_of(dataset.get('pipeline', [])))
    for number, (path, sample) in enumerate(in_order.items()):
        few = len(found.present) < 2
        more = few or (found.absent and number < MORE_SAMPLES and many_for(len(found.classes)) <= MORE_SAMPLES)
        if number >= len(spread[0]) and not more:
            break
        reduces, chosen, classes = found.reduce_zero_label, sample.get('label_map'), sample.get('mask_classes')
        shape = read_size(sample['img_path'], in_channels)[::-1]
        counted = counted_classes(in_files, reduces, tuple((chosen or {}).items()), found.ignore_index)
        labels = read_label_map(path, classes or counted, shape, ignore_index=found.ignore_index)
        if keeps_255 and classes is not None and not classes.is_plain and not reduces:
            raise UserError(
                f'{found.place} names numbers or colours of its classes but reads {path} with LoadAnnotations, which '
                'ignores them: read it with LoadLabelMap.'
            )
        found.add(path, labels)
        if keeps_255 and found.ignore_index != IGNORED and _gives_255(path, reduces, chosen):
            raise UserError(
                f'{found.place} ignores {found.ignore_index} but reads {path} with LoadAnnotations, which sets '
                'unlabelled pixels to 255: read it with LoadLabelMap.'
            )


def _gives_255(path: str, reduces: bool, chosen: dict | None) -> bool:
    """Whether MMSegmentation's LoadAnnotations sets some pixels of a file to 255."""
    ids = set(stored_ids(path))
    left_out = {old + reduces for old, new in (chosen or {}).items() if new == IGNORED}
    return bool(ids & {IGNORED, *left_out, *([0] if reduces else [])})


def _check_heads(config: Config, dataset: str, num_classes: int) -> None:
    """Checks that the heads have as many classes as the data set."""
    model, path = model_of(config)
    for head, place in heads_of(config):
        is_edge = head.get('type') in EDGE_HEADS
        if num_classes and not is_edge and head.get('num_classes', num_classes) != num_classes:
            shared = head['num_classes'] == model.get('num_classes')
            place = path if shared else place.rstrip('.0123456789')
            raise UserError(
                f'{place}.num_classes is {head["num_classes"]} and {dataset} has {num_classes} classes: make them equal'
            )


def _check_same_classes(classes: dict[str, tuple[str, ...]]) -> None:
    """Checks that a number means the same class in all data sets."""
    named = {place: names for place, names in classes.items() if names}
    for place, names in named.items():
        first, expected = next(iter(named.items()))
        if names != expected:
            pairs = zip(expected, names, strict=False)
            number = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(names), len(expected)))
            one, other = (repr(some[number]) if number < len(some) else 'none' for some in (expected, names))
            raise UserError(
                f'{first} and {place} number their classes differently (class {number} is {one} in the first and '
                f'{other} in the second): give both the same classes in the same order.'
            )


def _reads_as_stored(pipeline: list[dict]) -> bool:
    """Whether the ids in the files reach the model unchanged."""
    for name in (step.get('type') for step in pipeline):
        kind = TRANSFORMS.get(name) if isinstance(name, str) else None
        if kind is None or kind.__module__.split('.')[0] not in ('mmcv', 'mmseg', 'mmseg_ext'):
            return False  # a foreign transform may change ids
        if name.startswith('Load') and name not in LOADERS:
            return False
    return True
