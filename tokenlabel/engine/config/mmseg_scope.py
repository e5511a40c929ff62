"""Lets `_base_ = ['mmseg::...']` find the configs of the maintained MMSegmentation distribution."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from mmengine.config.utils import MODULE2PACKAGE

ORIGINAL = 'mmsegmentation'
MAINTAINED = 'onedl-mmsegmentation'


def _is_distribution(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def enable_mmseg_scope(is_installed: Callable[[str], bool] = _is_distribution) -> None:
    """Tells MMEngine which distribution holds the module `mmseg`; call it before reading a config file.

    MMEngine looks up `mmseg::` configs in the distribution `mmsegmentation`. If only `onedl-mmsegmentation` is
    installed, this function redirects the lookup to it. Configs, registries and inference of MMEngine share the mapping
    that is changed here.

    Args:
        is_installed: Whether a distribution of that name is installed.
    """
    if is_installed(MAINTAINED) and not is_installed(ORIGINAL):
        MODULE2PACKAGE['mmseg'] = MAINTAINED
