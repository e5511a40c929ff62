"""The tables of configs/: every config is in one, with the sizes that its network has."""

import re

import pytest

from tests.config_sizes import config_sizes
from tests.places import CONFIGS

ROW = re.compile(r'^\| \[`(\w+)\.py`\]\((\w+)\.py\) \| ([\d.]+) \| ([\d.]+) \|', re.MULTILINE)
# Parts of other configs, and the networks of one comparison, which demo/README.md names as a folder.
WITHOUT_A_ROW = ('_base_/', 'demo/families/', 'demo/scenes_segmentation', 'camvid/camvid')


def rows() -> dict[str, tuple[float, float]]:
    """Config -> millions of parameters and GMACs, as the tables have them."""
    found = {}
    for readme in CONFIGS.rglob('README.md'):
        for name, link, parameters, macs in ROW.findall(readme.read_text()):
            assert name == link
            found[(readme.parent / name).relative_to(CONFIGS).as_posix()] = float(parameters), float(macs)
    return found


def test_every_config_has_a_row():
    names = {path.relative_to(CONFIGS).with_suffix('').as_posix() for path in CONFIGS.rglob('*.py')}
    assert set(rows()) == {name for name in names if not name.startswith(WITHOUT_A_ROW)}


@pytest.mark.parametrize('name', rows())
def test_the_sizes_of_a_row_are_those_of_the_network(name):
    assert config_sizes(name) == rows()[name]
