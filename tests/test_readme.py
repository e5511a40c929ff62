"""The README's Python runs as it stands; what needs the network or data says so. Links lead to files."""

import re

import pytest

from tests.places import ROOT

BLOCK = re.compile(r'(<!-- needs: [^>]+ -->\n)?```python\n(.*?)```', re.DOTALL)
BLOCKS = [code for needs, code in BLOCK.findall((ROOT / 'README.md').read_text()) if not needs]
PAGES = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'), *(ROOT / 'configs').rglob('*.md')]


def test_the_block_of_targets_and_loss_runs():
    [code] = BLOCKS
    names: dict = {}
    exec(compile(code, 'README.md', 'exec'), names)
    assert names['loss'].ndim == 0 and 0 < names['loss'] < 20


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    targets = re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', page.read_text())
    missing = [target for target in targets if not target.startswith('http') and not (page.parent / target).exists()]
    assert not missing
