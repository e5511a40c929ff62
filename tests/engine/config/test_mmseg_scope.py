"""`mmseg::` in a config finds the distribution that is installed."""

import pytest
from mmengine.config.utils import MODULE2PACKAGE

from tokenlabel.engine.config.mmseg_scope import enable_mmseg_scope


@pytest.mark.parametrize(
    ('installed', 'expected'),
    [
        ({'onedl-mmsegmentation'}, 'onedl-mmsegmentation'),
        ({'mmsegmentation'}, 'mmsegmentation'),
        ({'mmsegmentation', 'onedl-mmsegmentation'}, 'mmsegmentation'),
        (set(), 'mmsegmentation'),
    ],
)
def test_the_maintained_distribution_is_used_where_it_alone_is_installed(monkeypatch, installed, expected):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    enable_mmseg_scope(installed.__contains__)
    assert MODULE2PACKAGE['mmseg'] == expected
