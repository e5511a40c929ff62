"""Images of any channels and range as pictures to look at."""

import numpy as np

DARKEST, BRIGHTEST = 2, 98  # percentiles of a channel that become black and white
MOST_VALUES = 2**18  # of a channel that the percentiles are taken of, evenly spread


def stretched(image: np.ndarray) -> np.ndarray:
    """RGB, uint8 [H, W, 3], of the first three channels of an image, each stretched from its 2nd to 98th percentile.

    Args:
        image: finite numbers [H, W, C]; of fewer than three channels the first one is shown in grey.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    values = shown.reshape(-1, shown.shape[2])
    values = values[:: -(-len(values) // MOST_VALUES)]
    low, high = np.percentile(values, (DARKEST, BRIGHTEST), axis=0).astype(np.float32)
    scaled = (shown - low) * (255 / np.where(high > low, high - low, 1))
    return np.repeat(np.rint(scaled.clip(0, 255)).astype(np.uint8), 3 // shown.shape[2], axis=2)
