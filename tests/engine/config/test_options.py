"""`--cfg-options`: what a value means, where a key leads, and what is refused at the command line."""

import argparse

import pytest
from mmengine.config import Config

from tokenlabel.engine.config.options import ConfigOptions, merge_options, parsed
from tokenlabel.errors import UserError


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('4', 4),
        ('-1', -1),
        ('1e-3', 1e-3),
        ('True', True),
        ('false', False),
        ('None', None),
        ('abc', 'abc'),
        ('1_000', '1_000'),
        ('', ''),
        ('[1,2]', [1, 2]),
        ('1,2', [1, 2]),
        ('(1, 2.5)', (1, 2.5)),
        ('[(1,2),[a,b],c]', [(1, 2), ['a', 'b'], 'c']),
        ('[]', []),
        ('()', ()),
        ('[a,]', ['a']),
        ('"4"', '4'),
        ("'a,b'", 'a,b'),
        ("'[1,2]'", [1, 2]),
        ('data/my images', 'data/my images'),
        ('[my images, others]', ['my images', 'others']),
        ('.*(loss|time).*', '.*(loss|time).*'),
        ("{'a': [1, 2]}", {'a': [1, 2]}),
        ("it's", "it's"),
        ('images(1).tar', 'images(1).tar'),
        ('a=b', 'a=b'),
    ],
)
def test_a_value_means_what_it_looks_like(text, value):
    assert parsed(text) == value
    assert type(parsed(text)) is type(value)


@pytest.mark.parametrize(
    'text', ['[1,2', '1,2]', '[1', '1]', '(1,2]', '[(1,2]', '((1,2)', '{"a": 1', '{a:1}', '{1', '1,(2']
)
def test_brackets_that_do_not_match_are_refused(text):
    with pytest.raises(UserError, match=r'brackets that do not match|not a dict'):
        parsed(text)


def parse(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
    return parser.parse_args(words).cfg_options


def test_options_are_collected():
    assert parse('--cfg-options', 'a.b=1', 'c=x=y', '--cfg-options', 'd=[1,2]') == {'a.b': 1, 'c': 'x=y', 'd': [1, 2]}
    assert parse('--cfg-options', 'a=1', 'a=2') == {'a': 2}  # scripts append to what they have


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['junk'], "'junk' is not KEY=VALUE"),
        (['=1'], 'not KEY=VALUE'),
        (['a..b=1'], 'not KEY=VALUE'),
        (['.a=1'], 'not KEY=VALUE'),
        (['a.=1'], 'not KEY=VALUE'),
        (['a =1'], 'not KEY=VALUE'),
        (['a=[1,2'], 'brackets that do not match'),
    ],
)
def test_what_is_no_option_ends_the_command(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        parse('--cfg-options', *words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def merged(**options) -> dict:
    entries = dict(a=dict(b=dict(c=1), none=None, text='x', list=[dict(d=1), 2], pair=(3, 4)), n=5)
    config = Config(entries)
    merge_options(config, {key.replace('__', '.'): value for key, value in options.items()}, 'mine.py')
    return config.to_dict()


def test_a_key_leads_through_dicts_and_lists_by_number():
    changed = merged(a__b__c=2, a__list__0__d=3, a__list__1=7, a__pair__1=9, a__new__e=1)
    assert changed['a']['b'] == {'c': 2}
    assert changed['a']['list'] == [{'d': 3}, 7]
    assert changed['a']['pair'] == (3, 9)
    assert changed['a']['new'] == {'e': 1}
    assert changed['n'] == 5


def test_what_the_config_leaves_out_can_be_filled():
    assert merged(a__none__type='X', a__none__n=1)['a']['none'] == {'type': 'X', 'n': 1}


def test_a_dict_is_merged_unless_it_replaces():
    assert merged(a__b={'d': 2})['a']['b'] == {'c': 1, 'd': 2}
    assert merged(a__b={'d': 2, '_delete_': True})['a']['b'] == {'d': 2}


def test_entries_that_share_a_dict_are_changed_one_by_one():
    config = Config(dict(val=(shared := dict(n=1)), test=shared))
    merge_options(config, {'val.n': 2})
    assert (config.val.n, config.test.n) == (2, 1)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'a__text__x': 1}, r"leads through a\.text, which is 'x' in mine\.py"),
        ({'n__x__y': 1}, r'leads through n, which is 5'),
        ({'a__list__2': 1}, r'a\.list\.2 does not exist: a\.list is a list of 2'),
        ({'a__list__x': 1}, 'does not exist'),
        ({'a__list__-1': 1}, 'does not exist'),
        ({'a__list__1__x': 1}, r'leads through a\.list\.1, which is 2'),
        ({'a__b': 1, 'a__b__c': 2}, r'sets a\.b\.c and what holds it'),
        ({'a__b__c': 2, 'a__b': 1}, r'sets a\.b and something in it'),
        ({'a____b': 1}, 'has an empty part'),
    ],
)
def test_a_key_that_leads_nowhere_is_refused(options, said):
    with pytest.raises(UserError, match=said):
        merged(**options)


@pytest.mark.parametrize('pair', ['a=' + '[' * 5000 + ']' * 5000, '.'.join('a' * 5000) + '=1'])
def test_what_is_nested_without_end_is_refused(pair):
    with pytest.raises(argparse.ArgumentError, match=r'too deep|more levels than a config has'):
        ConfigOptions(['--cfg-options'], 'options')(None, argparse.Namespace(options=None), [pair])
