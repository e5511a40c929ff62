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
    """Tells MMEngine which distribution holds the module `mmseg`; call it before a config file is read.

    MMEngine looks `mmseg::` configs up in the distribution `mmsegmentation`. Where that one is absent and
    `onedl-mmsegmentation` provides the module, the lookup is pointed there; otherwise nothing changes. All parts of
    MMEngine that ask (configs, registries, inference) share the one mapping that is changed here.

    Args:
        is_installed: Whether a distribution of that name is installed.
    """
    if is_installed(MAINTAINED) and not is_installed(ORIGINAL):
        MODULE2PACKAGE['mmseg'] = MAINTAINED
