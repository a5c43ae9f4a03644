"""Values: addresses, texts and paths that are kept, and those that are refused."""

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import values
from domain.errors import Invalid


@pytest.mark.parametrize(
    "address", ["", "ada", "ada@", "@example.org", "a b@example.org", "ada@example", "x" * 95 + "@ab.cd", "a\x00@b.cd"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(Invalid):
        values.email(address)


@given(st.text())
def test_a_kept_text_is_normal_and_within_its_bounds(value):
    try:
        kept = values.text(value, name="name", maximum=40)
    except Invalid:
        return
    assert 1 <= len(kept) <= 40
    assert values.text(kept, name="name", maximum=40) == kept
    assert len(kept.splitlines()) == 1
    assert "\t" not in kept


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("\n\t"), min_size=1, max_size=40))
def test_lines_and_tabs_are_kept_in_a_text_of_several_lines(value):
    kept = values.optional_multiline_text(value, name="description", maximum=200)
    assert kept == (unicodedata.normalize("NFC", value).strip() or None)


# ---- paths ----
PARTS = st.sampled_from(
    ["A1", "img.tif", ".", "..", "...", "", " ", " a ", "C:", "C:x", "\\", "e\u0301", "\u202f", "\u200b", "\u202e", "\x00", "\n"]
)
PATHS = st.lists(PARTS | st.text(max_size=8), max_size=6).map("/".join) | st.text(max_size=600)


@given(PATHS)
def test_a_path_is_relative_and_stays_as_it_is_or_is_refused(path):
    try:
        kept = values.relative_path(path)
    except Invalid:
        return
    assert values.relative_path(kept) == kept
    assert unicodedata.is_normalized("NFC", kept)
    assert kept.isprintable()
    assert 1 <= len(kept) <= 512
    assert not PurePosixPath(kept).is_absolute()
    assert not PureWindowsPath(kept).is_absolute()
    assert not {"", ".", ".."} & set(kept.split("/"))
    assert "\\" not in kept


NO_PATHS = [
    "",
    "/",
    "/a.tif",
    "\\a.tif",
    "C:\\a.tif",
    "c:/a.tif",
    "./c:/a.tif",
    "../a.tif",
    "a/../b.tif",
    "a//b.tif",
    "a/",
    "a/...",
    "a\n.tif",
    "a\x7f.tif",
]


@pytest.mark.parametrize("path", [*NO_PATHS, "x" * 513, "a/" * 256 + "b"])
def test_a_path_that_is_absolute_or_leaves_the_folder_or_is_too_long_is_refused(path):
    with pytest.raises(Invalid, match="path must"):
        values.relative_path(path)


KEPT_PATHS = {
    "A1/img.tif": "A1/img.tif",
    "A1\\img.tif": "A1/img.tif",
    "./A1/./img.tif": "A1/img.tif",
    "t:10.tif": "t:10.tif",
    " A1 / b ": "A1/b",
}


@pytest.mark.parametrize(("path", "kept"), [*KEPT_PATHS.items(), ("x" * 512, "x" * 512)])
def test_a_path_is_kept_with_plain_slashes(path, kept):
    assert values.relative_path(path) == kept
