"""Fills in a model's number of classes from its data set."""

from mmengine.config import Config

from mmseg_ext.checks.config_parts import SPLITS, datasets_of, model_of
from mmseg_ext.datasets.mask_classes import mask_classes


def settle_num_classes(config: Config) -> None:
    """Sets `model.num_classes`, if it is None, to the number of classes that a data set names.

    Args:
        config: A segmentation config, changed in place.

    Raises:
        UserError: As `mask_classes`.
    """
    model, _ = model_of(config)
    if 'num_classes' not in model or model['num_classes'] is not None:
        return
    for split in SPLITS:
        for dataset, _, _ in datasets_of(config, split):
            classes = dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes')
            if classes:
                counts_from_one = bool(dataset.get('reduce_zero_label')) and not hasattr(classes, 'items')
                scheme = mask_classes(classes, data_root=dataset.get('data_root'), count_from_one=counts_from_one)
                model['num_classes'] = len(scheme.names)
                return
