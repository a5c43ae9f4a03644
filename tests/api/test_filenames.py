"""File names in multipart headers: each becomes a name that can be stored, or is refused."""

import base64
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from api.filenames import filename_of
from application.filenames import clean_filename, safe_filename
from domain.errors import Invalid

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
LEGACY_NAMES = st.text(st.characters(codec="cp1252", exclude_categories=("Cc",)), min_size=1, max_size=60)
AMBIGUOUS = ("%22", "%0D", "%0A", "=?")  # these mean other characters in the forms that browsers and mail libraries send


def header(parameters):
    """A Content-Disposition header as the parser hands it over: bytes, decoded as Latin-1."""
    raw = parameters if isinstance(parameters, bytes) else parameters.encode()
    return (b'form-data; name="file"; ' + raw).decode("latin-1")


def browser(name):
    escaped = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    return f'filename="{escaped}"'


def with_backslashes(name):
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'filename="{escaped}"'


def extended(name):
    return f"filename*=UTF-8''{quote(name, safe='')}"


def extended_with_language(name):
    return f"filename*=utf-8'en'{quote(name, safe='')}"


def both(name):
    return f'filename="fallback.bin"; {extended(name)}'


def both_the_other_way_round(name):
    return f'{extended(name)}; filename="fallback.bin"'


def base64_word(name):
    return f'filename="=?UTF-8?B?{base64.b64encode(name.encode()).decode()}?="'


def quoted_printable_word(name):
    return f'filename="=?utf-8?q?{"".join(f"={byte:02X}" for byte in name.encode())}?="'


FORMS = [browser, with_backslashes, extended, extended_with_language, both, both_the_other_way_round, base64_word, quoted_printable_word]


def kept(parameters):
    """The name that is kept; None where there is none, or where it was refused. Any other error is a failure."""
    try:
        return filename_of(header(parameters))
    except Invalid:
        return None


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@given(name=NAMES)
def test_every_name_arrives_in_every_form(form, name):
    assume(not any(ambiguous in name for ambiguous in AMBIGUOUS))
    assume(form is not with_backslashes or not {"\r", "\n"} & set(name))
    assert kept(form(name)) == (clean_filename(name) or None)


@given(LEGACY_NAMES)
def test_a_name_in_the_characters_of_an_old_system_is_repaired(name):
    assume(not any(ambiguous in name for ambiguous in AMBIGUOUS))
    raw = name.replace('"', "%22").encode("cp1252")
    try:
        raw.decode()
        assume(name.isascii())
    except UnicodeDecodeError:
        pass
    assert kept(b'filename="' + raw + b'"') == (clean_filename(name) or None)


CLIENTS = {
    "only the extended form": ("filename*=utf-8''Zelle%20%C3%A4%CE%BC.jpg", "Zelle äμ.jpg"),
    "an extended form in Latin-1": ("filename*=ISO-8859-1''caf%E9.tif", "café.tif"),
    "an extended form in an unknown character set": ("filename*=x-mine''caf%C3%A9.tif", "café.tif"),
    "an extended form in quotes": ("filename*=\"UTF-8''caf%C3%A9.tif\"", "café.tif"),
    "an extended form without a character set": ("filename*=caf%C3%A9.tif", "café.tif"),
    "an extended form that is empty": ("filename*=UTF-8''; filename=\"a.tif\"", "a.tif"),
    "an extended form that does not decode": ("filename*=UTF-8''caf%E9.tif", "café.tif"),
    "no quotes": ("filename=cell.jpg", "cell.jpg"),
    "no quotes, but a space": ("filename=my cell.jpg; size=3", "my cell.jpg"),
    "quotes that are not escaped": ('filename="a"b.jpg"', 'a"b.jpg'),
    "capital letters": ('FileName="cell.jpg"', "cell.jpg"),
    "a semicolon": ('filename="a; filename=b.jpg"', "a; filename=b.jpg"),
    "a Windows path": ('filename="C:\\x\\y.tif"', "y.tif"),
    "a Windows path, escaped": ('filename="C:\\\\x\\\\y.tif"', "y.tif"),
    "a path": ('filename="../../etc/y.tif"', "y.tif"),
    "a backslash at the end": ('filename="y.tif\\"', "y.tif"),
    "an encoded word": ('filename="=?utf-8?B?R3LDtsOfZS5qcGc=?="', "Größe.jpg"),
    "an encoded word before an extension": ("filename==?utf-8?Q?Gr=C3=B6=C3=9Fe?=.jpg", "Größe.jpg"),
    "an encoded word in Japanese": ('filename="=?iso-2022-jp?B?GyRCRnxLXBsoQi50aWY=?="', "日本.tif"),
    "an encoded word that does not decode": ('filename="=?utf-8?B?A?="', "=?utf-8?B?A?="),
    "a decomposed name": ('filename="Gro\u0308\u00dfe.jpg"', "Größe.jpg"),
    "a narrow no-break space": ('filename="Shot 3.04\u202fPM.png"', "Shot 3.04 PM.png"),
    "a text direction mark": ('filename="cell\u202egpj.exe"', "cellgpj.exe"),
    "a hidden file": ('filename=". .cell.jpg"', "cell.jpg"),
}


@pytest.mark.parametrize(("sent", "name"), CLIENTS.values(), ids=CLIENTS)
def test_the_forms_that_clients_send_are_understood(sent, name):
    assert filename_of(header(sent)) == name


@pytest.mark.parametrize("sent", ["", 'filename=""', "filename=", "filename*=UTF-8''", "filename*=''", 'filename*=""; filename=""'])
def test_a_header_without_a_name_has_none(sent):
    assert filename_of(header(sent)) is None


@pytest.mark.parametrize("sent", ['filename="..."', 'filename="/"', 'filename="\x01"', "filename*=UTF-8''%00", 'filename="  "'])
def test_a_name_of_which_nothing_remains_is_refused_with_the_reason(sent):
    with pytest.raises(Invalid, match="rename the file"):
        filename_of(header(sent))


FRAGMENTS = ['"', "\\", ";", "=", "'", "%", "%22", "%C3", "=?utf-8?B?", "?Q?", "?=", "filename", "filename*", "UTF-8''", "utf-7", "idna"]


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(st.characters(codec="latin-1"), max_size=10), max_size=20).map("".join))
def test_whatever_a_header_holds_a_name_is_storable_or_refused(junk):
    name = kept(f"filename={junk}".encode("latin-1")) or kept(f"filename*={junk}".encode("latin-1")) or "image"
    assert_storable(name)


def assert_storable(name):
    assert unicodedata.is_normalized("NFC", name)
    assert name.isprintable()
    assert 1 <= len(name) <= 255
    assert name == name.strip()
    assert not name.startswith(".")
    assert not {"/", "\\"} & set(name)


@given(st.text(max_size=600))
def test_any_text_becomes_a_storable_name_and_stays_it(text):
    name = safe_filename(text)
    assert_storable(name)
    assert safe_filename(name) == name


STEMS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="/\\."), min_size=1, max_size=400)


@given(STEMS, st.sampled_from([".tif", ".TIFF", ".jpg", ".ome.tif", ".png", ".jpeg"]))
def test_a_name_that_is_shortened_keeps_its_extension(stem, extension):
    name = safe_filename(stem * 20 + extension)
    assert name.endswith(extension)
    assert len(name) <= 255
    assert unicodedata.normalize("NFC", stem * 20).startswith(name.removesuffix(extension))


def test_a_long_last_part_is_no_extension():
    assert safe_filename("a." + "b" * 400) == "a." + "b" * 253
