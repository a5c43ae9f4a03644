"""The names of derivatives: found again from the file, and the file from them."""

from hypothesis import given
from hypothesis import strategies as st

from application import derivatives

sha256s = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(sha256=sha256s)
def test_every_name_tells_the_file_that_it_was_made_from(sha256):
    for name in derivatives.of_all_readers(sha256):
        folder, found = derivatives.split(name)
        assert found == sha256
        assert name == f"{folder}/{sha256}"
        assert folder.split("/")[0] in derivatives.KINDS


@given(sha256=sha256s)
def test_what_the_current_reader_makes_is_deleted_with_the_file(sha256):
    current = derivatives.of_file(sha256)
    assert set(current) == {derivatives.thumbnail_of(sha256), derivatives.preview_of(sha256)}
    assert set(current) <= set(derivatives.of_all_readers(sha256))
