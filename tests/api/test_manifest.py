"""Manifests give the same labels in every encoding and with every delimiter."""

import codecs
import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.client.image_folder import upload_name
from api.cli.client.manifest import Manifest, parse_manifest, read_manifest

ENCODINGS = {
    "utf-8": lambda text: text.encode(),
    "utf-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 little endian": lambda text: text.encode("utf-16-le"),
    "utf-16 big endian": lambda text: text.encode("utf-16-be"),
    "utf-16 big endian with a mark": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "windows-1252": lambda text: text.encode("cp1252"),
    "latin-1": lambda text: text.encode("latin-1"),
}
WORDS = st.text("abcäöüßéè012 ,;'\"-_()", min_size=1, max_size=12).filter(lambda word: upload_name(word.strip()) == word)
TABLES = st.dictionaries(st.lists(WORDS, min_size=1, max_size=3).map("/".join), WORDS, min_size=1, max_size=6).map(
    lambda labels: {"ä.tif": "é", **labels}  # no UTF-8 by accident: an umlaut and an accent are in each
)


def saved(labels, *, delimiter=",", line="\r\n", columns=("file", "label"), first=""):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line)
    writer.writerow(columns)
    writer.writerows(labels.items())
    return first + out.getvalue()


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@given(labels=TABLES, line=st.sampled_from(["\r\n", "\n", "\r"]), with_separator_line=st.booleans())
def test_every_encoding_and_delimiter_gives_the_same_labels(encode, delimiter, labels, line, with_separator_line):
    first = f"sep={delimiter}{line}" if with_separator_line else ""
    found = parse_manifest(encode(saved(labels, delimiter=delimiter, line=line, first=first)), labels)
    assert (found.labels, found.warning) == (labels, "")


WRITINGS = [
    "A1/Größe.tif",
    "A1\\Größe.tif",
    "./A1/Größe.tif",
    " A1/Größe.tif ",
    unicodedata.normalize("NFD", "A1/Größe.tif"),
]


@pytest.mark.parametrize("written", WRITINGS)
def test_a_file_is_found_with_either_slash_and_in_either_unicode_form(written):
    found = parse_manifest(saved({written: "round"}).encode(), ["A1/Größe.tif"])
    assert (found.labels, found.warning) == ({"A1/Größe.tif": "round"}, "")


def test_columns_may_stand_anywhere_and_be_written_with_capitals():
    found = parse_manifest(b"Label; FILE ;size\nround;a.tif;3\n;b.tif;3\nflat\n", ["a.tif", "b.tif"])
    assert (found.labels, found.warning) == ({"a.tif": "round"}, "")


NO_LABELS = {
    b"": "needs the columns file and label in its first line",
    b"name,class\na.tif,round\n": "needs the columns file and label in its first line",
    b"a.tif,round\n": "needs the columns file and label in its first line",
    b"file,label\n": "has no line with a file and a label",
    b"file,label\na.tif,\n": "has no line with a file and a label",
    b'file,label\n"' + b"x" * 200_000: "is damaged",
    b"\x89PNG\r\n\x1a\n\0\0": "needs the columns file and label in its first line",
}


@pytest.mark.parametrize(("content", "reason"), NO_LABELS.items(), ids=range(len(NO_LABELS)))
def test_a_manifest_that_gives_no_label_is_warned_of(content, reason):
    found = parse_manifest(content, ["a.tif"])
    assert found.labels == {}
    assert found.warning.startswith(f"manifest.csv {reason}")


def test_files_that_are_not_there_are_named_in_one_warning():
    labels = {f"{name}.tif": "round" for name in "abcde"}
    assert parse_manifest(saved(labels).encode(), ["a.tif"]).warning == (
        "manifest.csv names 4 files that are not among the images: b.tif, c.tif, d.tif and 1 more"
    )
    one = parse_manifest(saved({"a.tif": "round", "\x1b[31mb.tif": "flat"}).encode(), ["a.tif"])
    assert one.warning == "manifest.csv names a file that is not among the images: [31mb.tif"
    assert one.labels == {"a.tif": "round"}


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f"file,label\n{text}".encode("utf-8", "surrogatepass")))
def test_no_manifest_breaks_a_run(content):
    found = parse_manifest(content, ["a.tif"])
    assert set(found.labels) <= {"a.tif"}
    assert found.warning == found.warning.strip()
    assert found.warning.isprintable()


def test_a_folder_without_a_manifest_has_no_labels_and_no_warning(tmp_path):
    assert read_manifest(tmp_path, ["a.tif"]) == Manifest(labels={}, warning="")
