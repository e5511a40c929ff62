"""MMSegmentation imports where mmcv has no compiled operators, whichever distribution it is of."""

import sys
from types import ModuleType

import pytest

from mmseg_ext.compiled_operators import import_without_operators
from tokenlabel.errors import UserError


@pytest.fixture
def mmcv_without_operators(tmp_path, monkeypatch):
    """An mmcv whose operators are not compiled, in place of the real one, and a folder for modules that use it."""
    for name in [name for name in sys.modules if name.partition('.')[0] == 'mmcv']:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').touch()
    (tmp_path / 'mmcv/ops.py').write_text('import mmcv._ext\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition('.')[0] in ('mmcv', 'segmentation')]:
        del sys.modules[name]


def imported(folder, text: str) -> ModuleType:
    (folder / 'segmentation.py').write_text(text)
    import_without_operators('segmentation')
    return sys.modules['segmentation']


def test_what_imports_operators_and_uses_none_is_imported(mmcv_without_operators):
    text = 'import mmcv.ops\nfrom mmcv.ops import point_sample\nfrom mmcv.ops.point_sample import x\nnumber = 3\n'
    assert imported(mmcv_without_operators, text).number == 3


@pytest.mark.parametrize('use', ['PSAMask(3)', 'mmcv.ops.sigmoid_focal_loss(1, 2)', 'type("A", (PSAMask,), {})()'])
def test_what_uses_one_is_told_which_and_what_to_install(mmcv_without_operators, use):
    module = imported(mmcv_without_operators, 'import mmcv.ops\nfrom mmcv.ops import PSAMask\n')
    with pytest.raises(UserError, match='is a compiled operator of mmcv, and this mmcv has none: install'):
        eval(use, vars(module))


def test_what_does_without_operators_by_itself_gets_no_stand_ins(mmcv_without_operators):
    text = 'try:\n    from mmcv.ops import PSAMask\nexcept ModuleNotFoundError:\n    PSAMask = None\n'
    assert imported(mmcv_without_operators, text).PSAMask is None
    assert 'mmcv.ops' not in sys.modules


def test_another_missing_module_stays_an_error(mmcv_without_operators):
    with pytest.raises(ModuleNotFoundError, match='no_such_module'):
        imported(mmcv_without_operators, 'import no_such_module\n')
