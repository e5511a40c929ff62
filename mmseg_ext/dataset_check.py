"""Looks at the folders of a segmentation data set before anything is built on them."""

from pathlib import Path

from mmengine.config import Config
from mmseg.registry import DATASETS

from tokenlabel.errors import UserError


def check_datasets(config: Config, splits: tuple[str, ...] = ('train', 'val')) -> None:
    """Makes sure that the images and annotations which a config names are there.

    Data sets that are not one folder of images beside one of annotations (wrapped ones, or with a list of files) are
    left to MMSegmentation.

    Args:
        config: A segmentation config whose `custom_imports` are done.
        splits: Which of the `train`, `val` and `test` data loaders to look at.

    Raises:
        UserError: A folder is missing, there are no images in it, or images lack their annotation.
    """
    for split in splits:
        dataset = (config.get(f'{split}_dataloader') or {}).get('dataset', {})
        prefix = dataset.get('data_prefix', {})
        if 'img_path' not in prefix or 'seg_map_path' not in prefix or dataset.get('ann_file'):
            continue
        for name in ('img_path', 'seg_map_path'):
            folder = Path(dataset.get('data_root') or '', prefix[name])
            if not folder.is_dir() or not any(folder.iterdir()):
                state = 'empty' if folder.is_dir() else 'missing'
                raise UserError(
                    f'{folder} is {state}: put the data set there, or name its place with '
                    f'--cfg-options {split}_dataloader.dataset.data_root=FOLDER'
                )
        check_annotations(dataset)


def check_annotations(dataset: dict) -> None:
    """Makes sure that every image of a data set has an annotation.

    Raises:
        UserError: There are no images, or some lack their annotation.
    """
    images = Path(dataset.get('data_root') or '', dataset['data_prefix']['img_path'])
    built = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
    samples = built.load_data_list() if any(images.rglob(f'*{built.img_suffix}')) else []
    if not samples:
        raise UserError(f'{images} holds no {built.img_suffix} images: put the data set there')
    missing = [sample['img_path'] for sample in samples if not Path(sample['seg_map_path']).is_file()]
    if missing:
        raise UserError(
            f'{len(missing)} of {len(samples)} images in {images} have no annotation, such as '
            f'{", ".join(missing[:3])}: complete {built.data_prefix["seg_map_path"]}, or remove these images'
        )
