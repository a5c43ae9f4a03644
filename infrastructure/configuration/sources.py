"""The settings as an operator sees them: value and source, without secrets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from infrastructure.configuration.settings import Readings, Settings, read, variable
from infrastructure.configuration.urls import HIDDEN, without_password

SECRETS: Final = frozenset({"blobs_key", "blobs_secret"})

Source = Literal["default", "environment", "command line"]


class ShownSetting(msgspec.Struct, frozen=True):
    """A setting with the source of its value. `value` is None if the variable is invalid."""

    variable: str
    value: str | int | float | bool | tuple[str, ...] | None
    source: Source


def shown_settings(environment: Mapping[str, str], options: Mapping[str, Any]) -> tuple[list[ShownSetting], list[str]]:
    """All settings in the order of `Settings`, and a message for each problem. `options` are those of the command line."""
    readings = read(environment)
    shown = [_shown(field.name, readings, options) for field in msgspec.structs.fields(Settings)]
    return shown, list(readings.problems.values())


def _shown(field: str, readings: Readings, options: Mapping[str, Any]) -> ShownSetting:
    name = variable(field)
    if field in options:
        return ShownSetting(name, _without_secrets(field, options[field]), "command line")
    if name in readings.problems:
        return ShownSetting(name, None, "environment")
    if field in readings.values:
        return ShownSetting(name, _without_secrets(field, readings.values[field]), "environment")
    return ShownSetting(name, _without_secrets(field, getattr(Settings(), field)), "default")


def _without_secrets(field: str, value: Any) -> Any:
    match value:
        case str() if value and field in SECRETS:
            return HIDDEN
        case str():
            return without_password(value)
        case tuple():
            return tuple(map(without_password, value))
        case Path():
            return str(value)
        case _:
            return value
