"""Checks that training images are large enough for the training crop."""

from collections.abc import Mapping, Sequence

from mmcv.image.geometric import rescale_size

# Transforms that do not change the size of an image.
SAME_SIZE = {
    'AdjustGamma',
    'CLAHE',
    'LoadAnnotations',
    'LoadImageFromFile',
    'LoadLabelMap',
    'PhotoMetricDistortion',
    'RGB2Gray',
    'RandomCutOut',
    'RandomIntensity',
    'Rerange',
}
Size = tuple[int, int]  # height and width, in pixels


def warning_of_large_crop(pipeline: Sequence[Mapping], place: str, sizes: Sequence[Size]) -> str | None:
    """A warning if a pipeline's RandomCrop is larger than all of the images after resizing, else None.

    The rest of such a crop is padding with the ignored label, in every iteration.

    Args:
        pipeline: transforms of a config.
        place: path of the data set in the config.
        sizes: (height, width) of stored images in pixels.

    Returns:
        The warning; None if an image fills the crop, or if a transform's output size is unknown.
    """
    number = next((n for n, step in enumerate(pipeline) if step.get('type') == 'RandomCrop'), None)
    crop = None if number is None else pipeline[number].get('crop_size')
    crop = (crop, crop) if isinstance(crop, int) else crop
    largest = [largest_size(size, pipeline[:number]) for size in sizes]
    if not crop or not largest or None in largest or any(h >= crop[0] and w >= crop[1] for h, w in largest):
        return None
    height, width = max(largest, key=lambda size: min(size[0] / crop[0], size[1] / crop[1]))
    return (
        f'{place}.pipeline.{number} (RandomCrop) takes {crop[0]}x{crop[1]}, which none of the {len(sizes)} images '
        f'looked at fills: they become at most {height}x{width} (height x width), and the rest of each crop is padding '
        'that is not learned. Set a smaller crop_size (and model.data_preprocessor.size), or resize the images to more.'
    )


def largest_size(size: Size, steps: Sequence[Mapping]) -> Size | None:
    """The largest size that an image may have after some transforms; None where that is not known."""
    for step in steps:
        kind = step.get('type')
        if kind == 'RandomFlip' and step.get('direction', 'horizontal') in ('horizontal', 'vertical'):
            continue
        if kind not in SAME_SIZE:
            scales = _scales(step, size)
            if not scales:
                return None
            size = max(_resized(size, scale, step.get('keep_ratio', False)) for scale in scales)
    return size


def _scales(step: Mapping, size: Size) -> list[tuple[int, int]]:
    """The largest scales (width, height) that a transform resizes to; none where they are not known."""
    kind, scale = step.get('type'), step.get('scale')
    if kind == 'Resize' and scale is None and isinstance(factor := step.get('scale_factor'), int | float):
        return [(round(size[1] * factor), round(size[0] * factor))]
    if kind == 'RandomChoiceResize' and step.get('resize_type', 'Resize') == 'Resize':
        scales = step.get('scales') or []
    elif kind in ('Resize', 'RandomResize') and scale is not None:
        scales = scale if isinstance(scale, list | tuple) and isinstance(scale[0], list | tuple) else [scale]
    else:
        return []
    ratio = max(step.get('ratio_range') or (1,)) if kind == 'RandomResize' else 1
    pairs = [(one, one) if isinstance(one, int) else tuple(one) for one in scales]
    return [(int(width * ratio), int(height * ratio)) for width, height in pairs]


def _resized(size: Size, scale: tuple[int, int], keeps_ratio: bool) -> Size:
    if not keeps_ratio:
        return scale[::-1]
    width, height = rescale_size(size[::-1], scale)
    return height, width
