"""Names of classes as people read them."""

from timm.data import ImageNetInfo

from tokenlabel.pictures.names import readable_names


def test_ids_of_synsets_become_words():
    assert readable_names(['n04133789', 'n02979186']) == ['sandal', 'cassette player']


def test_words_that_stand_for_several_have_their_ids_beside_them():
    assert readable_names(['n02012849', 'n03126707']) == ['crane (n02012849)', 'crane (n03126707)']


def test_other_names_stay_what_they_are():
    assert readable_names(['leaf', 'n1', 'n99999999', 'digit_3']) == ['leaf', 'n1', 'n99999999', 'digit_3']


def test_no_two_classes_of_imagenet_have_one_name():
    names = readable_names(ImageNetInfo('imagenet-1k').label_names())
    assert len(set(names)) == 1000
