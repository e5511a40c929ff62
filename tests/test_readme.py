"""The README's Python runs as it stands; what needs the network or data says so."""

import re

import pytest

from tests.places import ROOT

BLOCK = re.compile(r'(<!-- needs: [^>]+ -->\n)?```python\n(.*?)```', re.DOTALL)
BLOCKS = [code for needs, code in BLOCK.findall((ROOT / 'README.md').read_text()) if not needs]


@pytest.mark.parametrize('code', BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs(code):
    names: dict = {}
    exec(compile(code, 'README.md', 'exec'), names)
    assert names['loss'].total.ndim == 0 if hasattr(names['loss'], 'total') else names['loss'] is not None


def test_every_link_leads_to_a_file():
    for page in [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'), *(ROOT / 'configs').rglob('*.md'), ROOT / 'CONTRIBUTING.md']:
        for target in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', page.read_text()):
            if not target.startswith('http'):
                assert (page.parent / target).exists(), (page, target)
