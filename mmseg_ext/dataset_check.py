"""Looks at the folders and files of segmentation data sets before anything is built on them."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS

from mmseg_ext.datasets.load_label_map import IGNORED, read_label_map
from mmseg_ext.stored_files import open_stored
from tokenlabel.errors import UserError
from tokenlabel.image_files.reading import image_size
from tokenlabel.image_files.unreadable import named

SAMPLES = 20  # annotations that are read of each data set; each costs some milliseconds
LOADERS = ('LoadImageFromFile', 'LoadAnnotations', 'LoadLabelMap')
EDGE_HEADS = ('STDCHead',)  # which tell edges, in two classes, whatever the data set has


def check_datasets(config: Config, splits: tuple[str, ...] = ('train', 'val')) -> None:
    """Makes sure that the images and annotations which a config names are there, and that some of them fit the model.

    Every image must have its annotation. Of each data set up to `SAMPLES` annotations, evenly spread, are read: their
    sizes and ids, unless transforms from elsewhere make ids of what is stored. Wrapped data sets (`ConcatDataset`,
    `RepeatDataset`) are looked into; those of other kinds than MMSegmentation's `BaseSegDataset` and those on another
    machine are left alone.

    Args:
        config: A segmentation config whose `custom_imports` are done.
        splits: Which of the `train`, `val` and `test` data loaders to look at.

    Raises:
        UserError: A folder or list is missing, there are no images in it, images lack their annotation, an annotation
            does not fit its image or the classes, or the model's heads have another number of classes.
    """
    for split in splits:
        for dataset in _leaves((config.get(f'{split}_dataloader') or {}).get('dataset') or {}):
            kind = DATASETS.get(dataset['type']) if isinstance(dataset.get('type'), str) else None
            is_here = not dataset.get('backend_args') and '://' not in str(dataset.get('data_root'))
            if is_here and isinstance(kind, type) and issubclass(kind, BaseSegDataset):
                _check_places(dataset, split)
                _check(dataset, config.get('model') or {})


def _leaves(dataset: dict) -> Iterator[dict]:
    """The data sets inside wrappers."""
    inner = [*dataset.get('datasets', ()), *([dataset['dataset']] if 'dataset' in dataset else ())]
    if inner:
        for part in inner:
            yield from _leaves(part)
    elif dataset:
        yield dataset


def _check_places(dataset: dict, split: str) -> None:
    """Makes sure that folders and list are there, before the data set's own constructor looks for them."""
    root = Path(dataset.get('data_root') or '')
    prefix = dataset.get('data_prefix', {})
    moves = f'put the data set there, or name its place with --cfg-options {split}_dataloader.dataset.data_root=FOLDER'
    for name in ('img_path', 'seg_map_path'):
        if prefix.get(name) is None:
            continue
        folder = root / prefix[name]
        if not folder.is_dir() or not any(folder.iterdir()):
            raise UserError(f'{folder} is {"empty" if folder.is_dir() else "missing"}: {moves}')
    if dataset.get('ann_file') and not (root / dataset['ann_file']).is_file():
        raise UserError(f'The list of images {root / dataset["ann_file"]} is missing: {moves}')


def _check(dataset: dict, model: dict) -> None:
    """Makes sure that every image of a data set has an annotation, and that some annotations and the heads fit."""
    built = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True, 'test_mode': False})
    samples = built.load_data_list()
    images = built.data_prefix.get('img_path')
    if not samples:
        wanted = f' that {built.ann_file} lists' if built.ann_file else f': there is no {built.img_suffix} file in it'
        raise UserError(f'{images} holds no images{wanted}: put the data set there')
    annotated = [sample for sample in samples if 'seg_map_path' in sample]
    listed = [('img_path', 'are missing')] if built.ann_file else []  # else they were found by looking
    for key, what in (*listed, ('seg_map_path', 'have no annotation')):
        missing = [sample for sample in annotated if not Path(sample[key]).is_file()]
        if missing:
            raise UserError(
                f'{len(missing)} of {len(samples)} images in {images} {what}, such as '
                f'{", ".join(sample["img_path"] for sample in missing[:3])}: complete '
                f'{Path(missing[0][key]).parent}, or remove these images'
            )
    classes = built.metainfo.get('classes') or ()
    heads = _heads(model)
    _check_heads(heads, dataset['type'], len(classes))
    if not _reads_as_stored(dataset.get('pipeline', [])):
        return
    # ids in the files count the classes of the data set's kind, of which a config may choose some
    in_files = len(type(built).METAINFO.get('classes') or classes) or None
    if {built.ignore_index, *(head.get('ignore_index', IGNORED) for _, head in heads)} != {IGNORED}:
        in_files = None
    for sample in annotated[:: max(1, -(-len(annotated) // SAMPLES))]:
        shape = _shape(sample['img_path'])
        read_label_map(sample['seg_map_path'], in_files, built.reduce_zero_label, shape=shape)


def _heads(model: dict) -> list[tuple[str, dict]]:
    """The heads that tell classes, each with its place in the config."""
    model = model.get('module') or model  # inside a model of test-time augmentation
    found = []
    for name in ('decode_head', 'auxiliary_head'):
        heads = model.get(name) or []
        found += [(name, head) for head in (heads if isinstance(heads, (list, tuple)) else [heads])]
    return [(name, head) for name, head in found if head.get('type') not in EDGE_HEADS]


def _check_heads(heads: list[tuple[str, dict]], dataset: str, num_classes: int) -> None:
    """Makes sure that the heads have as many classes as the data set."""
    for name, head in heads:
        if num_classes and head.get('num_classes', num_classes) != num_classes:
            raise UserError(
                f'model.{name}.num_classes is {head["num_classes"]} and {dataset} has {num_classes} classes: make them '
                'equal'
            )


def _reads_as_stored(pipeline: list[dict]) -> bool:
    """Whether pictures are loaded as such and ids reach the model as they are in the files."""
    for name in (step.get('type') for step in pipeline):
        kind = TRANSFORMS.get(name) if isinstance(name, str) else None
        if kind is None or kind.__module__.split('.')[0] not in ('mmcv', 'mmseg', 'mmseg_ext'):
            return False  # someone's own may make ids of anything
        if name.startswith('Load') and name not in LOADERS:
            return False
    return True


def _shape(path: str) -> tuple[int, int]:
    """Height and width of an image as it is shown, in pixels, from its header alone."""
    with named(path), open_stored(path) as stream:
        width, height = image_size(stream)
    return height, width
