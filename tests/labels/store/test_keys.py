"""Names in one array, and keys that are looked up in it."""

from hypothesis import given
from hypothesis import strategies as st

from tokenlabel.labels.store.keys import Keys, Names, encode_keys

# no path has a zero byte, which at the end of a name would be taken for padding
NAMES = st.lists(st.text(st.characters(codec='utf-8', exclude_characters='\0'), max_size=12))


@given(NAMES)
def test_names_come_back_in_their_order(names):
    kept = Names.of(names)
    assert list(kept) == names
    assert kept[1:3] == names[1:3]
    assert kept.encoded.dtype.kind == 'S'


def test_keys_are_found_where_they_are_and_nowhere_else():
    encoded = encode_keys(['a/1.jpg', 'b/1.jpg', 'ß/1.jpg'])
    keys = Keys(encoded)
    queries = ['ß/1.jpg', 'a/1.jpg', 'a/1.jpeg', 'a very long name that is not there', '']
    assert keys.rows(queries).tolist() == [2, 0, -1, -1, -1]
    assert 'b/1.jpg' in keys and 'b' not in keys
