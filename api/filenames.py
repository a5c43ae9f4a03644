"""Reads the file name in the Content-Disposition header of a form part, in each form that clients send.

Browsers send raw UTF-8 with `%22`, `%0D` and `%0A` (WHATWG); older clients escape with backslashes; RFC 5987 has an extended
parameter `filename*`; mail libraries send encoded words (RFC 2047); some clients send the encoding of their own system.
"""

import re
from email.errors import HeaderParseError
from email.header import decode_header
from urllib.parse import unquote_to_bytes

from application.filenames import clean_filename, decoded
from domain.values import invalid

END = r"(?=\s*(?:;|\Z))"
QUOTED = rf'"(?:\\.|[^"\\])*"{END}|".*?"{END}'  # with escapes; or with a backslash that escapes nothing
PARAMETER = re.compile(rf';\s*([^\s;="]+)\s*=\s*({QUOTED}|[^;]*)', re.DOTALL)
EXTENDED = re.compile(r"([^']*)'[^']*'(.*)", re.DOTALL)
ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[BbQq]\?[^?\s]*\?=")
WHATWG_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}


def filename_of(content_disposition: str) -> str | None:
    """The file name as it is stored: NFC, printable, 1 to 255 characters. None if the header has no name, or an empty one.

    `content_disposition` is the header's value decoded as Latin-1, which keeps its bytes. Raises Invalid if no
    character of the name can be stored.
    """
    parameters = {key.lower(): value.strip() for key, value in PARAMETER.findall(content_disposition)}
    name = _extended(parameters.get("filename*", "")) or _plain(parameters.get("filename", ""))
    if not name:
        return None
    if not (cleaned := clean_filename(name)):
        raise invalid("filename", "has no character that can be stored: rename the file")
    return cleaned


def _extended(value: str) -> str:
    """`UTF-8'en'caf%C3%A9.tif` (RFC 5987). Without character set and language, UTF-8 is assumed."""
    match = EXTENDED.fullmatch(_unquoted(value))
    charset, encoded = match.groups() if match else ("utf-8", _unquoted(value))
    return decoded(unquote_to_bytes(encoded.encode("latin-1")), charset)


def _plain(value: str) -> str:
    name = decoded(_unescaped(value).encode("latin-1"))
    return _from_encoded_words(name) if name.isascii() and ENCODED_WORD.search(name) else name


def _unescaped(value: str) -> str:
    inner = _unquoted(value)
    if '\\"' in inner:
        return re.sub(r'\\(["\\])', r"\1", inner)
    for escape, character in WHATWG_ESCAPES.items():
        inner = inner.replace(escape, character)
    return inner


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _from_encoded_words(name: str) -> str:
    """`=?utf-8?Q?caf=C3=A9?=.tif` (RFC 2047)."""
    try:
        pieces = decode_header(name)
    except HeaderParseError:
        return name
    return "".join(piece if isinstance(piece, str) else decoded(piece, charset or "utf-8") for piece, charset in pieces)
