"""Where a JSON body has text that cannot be stored: NUL, and halves of characters (lone surrogates)."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

MAX_SEARCHED_BYTES: Final = 64 * 1024  # of a body that is refused in any case, since the search is a loop over its values
SHOWN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def place_of_unstorable(body: bytes) -> tuple[str, ...]:
    """The path to the first such text, without names that are none of a field. Empty if there is none, or if the body is too large."""
    if len(body) > MAX_SEARCHED_BYTES:
        return ()
    try:
        value = json.loads(body.decode("utf-8", "surrogatepass"), strict=False)
    except (ValueError, RecursionError):
        return ()
    return next((tuple(path) for path in _places(value, [])), ())


def _places(value: Any, path: list[str]) -> Iterator[list[str]]:
    match value:
        case str() if UNSTORABLE.search(value):
            yield path
        case dict():
            for name, inner in value.items():
                if UNSTORABLE.search(name):
                    yield path
                yield from _places(inner, [*path, name] if SHOWN_NAME.fullmatch(name) else path)
        case list():
            for number, inner in enumerate(value):
                yield from _places(inner, [*path, str(number)])
