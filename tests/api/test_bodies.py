"""Checks of JSON bodies: as fast as the decoder, with the same result as a check of each character. Unfinished ones are limited."""

import asyncio
import json
import time

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.middleware.body_limits import MAX_DEPTH, check_json
from api.middleware.unstorable_text import MAX_SEARCHED_BYTES
from api.problems import Malformed, UnsupportedMediaType

JSON = b"application/json"
SIGNS = st.text(st.sampled_from('\0\\u"[]{}0aé\ud800\udc00😀'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | SIGNS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SIGNS, inner, max_size=4),
)


def is_accepted(body, content_type=JSON):
    try:
        check_json(content_type, body)
    except Malformed:
        return False
    return True


def looked_at_each(body):
    """The judgement in words: valid JSON without NUL, lone surrogates, and more levels than there may be."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return _fine(found, 0)


def _fine(found, depth):
    match found:
        case str():
            return not any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in found)
        case dict():
            return depth < MAX_DEPTH and all(_fine(name, depth) and _fine(value, depth + 1) for name, value in found.items())
        case list():
            return depth < MAX_DEPTH and all(_fine(value, depth + 1) for value in found)
        case _:
            return True


@given(VALUES, st.booleans())
@example("\\\0", True)
@example("\\u0000", True)
def test_it_judges_as_one_who_looks_at_each_character(value, ascii_only):
    body = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    assert is_accepted(body) == looked_at_each(body)


@given(st.binary(max_size=40) | st.text(st.sampled_from('[]{}",:\\u0d8c a1'), max_size=60).map(str.encode))
def test_it_judges_whatever_bytes_as_one_who_looks_at_each_character(body):
    assert is_accepted(body) == looked_at_each(body)


@given(st.integers(1, 2 * MAX_DEPTH), st.sampled_from([("[", "]"), ('{"[a":', "}")]), st.sampled_from(["1", '"]]["', '"\\"["']))
def test_brackets_count_as_depth_outside_of_texts_alone(depth, brackets, inside):
    body = (brackets[0] * depth + inside + brackets[1] * depth).encode()
    beside = b"[" + b",".join([b'"[["'] * 200) + b"]"
    assert is_accepted(body) == (depth <= MAX_DEPTH)
    assert is_accepted(beside)


@pytest.mark.parametrize("parameters", ["", ";charset=utf-8", '; Charset="UTF-8"', ";charset=utf8;x=y"])
def test_json_in_utf_8_is_taken(parameters):
    assert is_accepted(b"{}", JSON + parameters.encode())


@pytest.mark.parametrize("parameters", [";charset=iso-8859-1", "; charset=utf-16", ';charset="latin1"', ";x=y;charset=us-ascii"])
def test_json_in_another_charset_is_of_a_type_that_is_not_taken(parameters):
    with pytest.raises(UnsupportedMediaType):
        check_json(JSON + parameters.encode(), b"{}")


HOSTILE = {
    "one long text": b'"' + b"x" * 1024**2 + b'"',
    "many numbers": b"[" + b"1," * (512 * 1024) + b"1]",
    "many lists": b"[" + b"[]," * (340 * 1024) + b"[]]",
    "backslashes": b'["\\u0041' + b"\\\\" * (500 * 1024) + b'","u0000"]',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_it_takes_hardly_longer_than_to_decode(kind):
    """A ratio of CPU times, each the best of some: a loop over characters or values takes many times as long."""
    body = HOSTILE[kind]
    checked = min(_seconds(lambda: check_json(JSON, body)) for _ in range(5))
    decoded = min(_seconds(lambda: msgspec.json.decode(body)) for _ in range(5))
    copied = min(_seconds(lambda: bytes(map(int, body[: 64 * 1024]))) for _ in range(3))
    assert checked < 4 * decoded + copied


def _seconds(act):
    began = time.thread_time()
    act()
    return time.thread_time() - began


NAMES = st.sampled_from(["name", "rules", "label_at"])
UNSTORABLE = st.sampled_from(["a\0b", "\ud800", float("nan"), float("-inf")])
FINE = st.sampled_from(["\\u0000", "é", 1, None, [], {}])


@given(st.lists(NAMES | st.just(0), min_size=1, max_size=5), UNSTORABLE, FINE, st.booleans())
def test_a_value_that_cannot_be_stored_is_refused_by_its_place(path, value, fine, ascii_only):
    body = value
    for part in reversed(["field", *path]):
        body = [body, fine] if part == 0 else {"other": fine, part: body}
    with pytest.raises(Malformed) as refused:
        check_json(JSON, json.dumps(body, ensure_ascii=ascii_only).encode(errors="surrogatepass"))
    assert refused.value.errors[0]["loc"] == ["body", "field", *map(str, path)]
    assert refused.value.detail.startswith(".".join(["field", *map(str, path)]))


def test_a_name_that_is_none_of_a_field_is_not_repeated():
    with pytest.raises(Malformed) as refused:
        check_json(JSON, b'{"labels": {"<script>": {"x": "\\u0000"}}}')
    assert refused.value.errors[0]["loc"] == ["body", "labels", "x"]


def test_the_place_is_not_searched_in_large_bodies():
    with pytest.raises(Malformed, match=r"^Text must not contain the character NUL$"):
        check_json(JSON, b'{"name": "\\u0000' + b"x" * MAX_SEARCHED_BYTES + b'"}')


@pytest.mark.anyio
async def test_unfinished_bodies_of_an_address_count_together_on_all_routes(api):
    http = api.with_options(anonymous_bodies_per_address=1).anonymous(**{"Content-Type": "application/json"})
    was_read = asyncio.Event()

    async def unfinished():
        yield b"{"
        was_read.set()
        await asyncio.Event().wait()

    first = asyncio.create_task(http.post("/api/auth/login", content=unfinished()))
    await was_read.wait()
    refused = await http.post("/api/auth/refresh", json={"refresh_token": "none"})
    assert (refused.status_code, (await first).status_code) == (401, 429)
