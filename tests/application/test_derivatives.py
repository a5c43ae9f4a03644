"""Names of renditions: each names its file, and all are found from the file."""

from hypothesis import given
from hypothesis import strategies as st

from application import derivatives
from infrastructure.images.reader_version import READER_VERSION

sha256s = st.binary(min_size=32, max_size=32).map(bytes.hex)
readers = st.integers(1, derivatives.MAX_READER_VERSION)


@given(sha256=sha256s)
def test_every_name_gives_the_file_that_it_was_made_from(sha256):
    for name in derivatives.of_all_readers(sha256):
        folder, found = derivatives.split(name)
        assert found == sha256
        assert name == f"{folder}/{sha256}"
        assert folder.split("/")[0] in derivatives.KINDS


@given(sha256=sha256s, reader=readers, other=readers)
def test_what_a_reader_makes_is_deleted_with_the_file_and_differs_from_what_another_makes(sha256, reader, other):
    pictures = set(derivatives.of_file(sha256, reader))
    assert pictures == {derivatives.thumbnail_of(sha256, reader), derivatives.preview_of(sha256, reader)}
    assert pictures <= set(derivatives.of_all_readers(sha256))
    assert (reader == other) is not pictures.isdisjoint(derivatives.of_file(sha256, other))


def test_pictures_of_the_first_reader_keep_their_names():
    assert derivatives.of_file("ab", 1) == ("thumbnail/ab", "preview/ab")
    assert derivatives.of_file("ab", 2) == ("thumbnail/2/ab", "preview/2/ab")


def test_the_pictures_of_todays_reader_are_deleted_with_the_file():
    assert READER_VERSION <= derivatives.MAX_READER_VERSION
