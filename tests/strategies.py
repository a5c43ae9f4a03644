"""Hypothesis strategies for every registered event, made from the types of its fields."""

import typing
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from types import UnionType
from uuid import UUID

import msgspec
from hypothesis import strategies as st

from domain.events import Event
from domain.registry import EVENTS

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)
MOMENTS = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))
STREAMS = st.integers(0, 5).map(lambda number: UUID(int=number))
PLAIN = {
    str: TEXT,
    int: st.integers(0, 2**31 - 1),
    float: st.floats(0, 1, allow_nan=False),
    bool: st.booleans(),
    UUID: STREAMS,
    datetime: MOMENTS,
    type(None): st.none(),
    msgspec.UnsetType: st.just(msgspec.UNSET),
}


@cache
def of_type(wanted: typing.Any) -> st.SearchStrategy[typing.Any]:
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in {typing.Union, UnionType}:
        return st.one_of(*map(of_type, inner))
    if origin is tuple and inner[-1] is not Ellipsis:
        return st.tuples(*map(of_type, inner))
    if origin is tuple:
        return st.lists(of_type(inner[0]), max_size=4).map(tuple)
    if origin is dict:
        return st.dictionaries(of_type(inner[0]), of_type(inner[1]), max_size=3)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return st.sampled_from(list(wanted))
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return st.builds(wanted, **{name: of_type(hint) for name, hint in fields_of(wanted).items()})
    return PLAIN[wanted]


def fields_of(kind: type[msgspec.Struct]) -> dict[str, typing.Any]:
    hints = typing.get_type_hints(kind)
    return {name: hints[name] for name in kind.__struct_fields__}


@cache
def events(*kinds: type[Event]) -> st.SearchStrategy[Event]:
    """Any event of `kinds`; of all types, where none is named."""
    return st.one_of(*(of_type(kind) for kind in kinds or EVENTS.values()))
