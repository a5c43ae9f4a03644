"""What a person chooses for a job on the command line: the version of a model, the planes of each image, and how it runs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from domain.classification import Projection
from domain.classification.job import MAX_CHANNELS
from domain.model import PRODUCTION

AXES: Final = ("z", "c", "t")
EXAMPLES: Final = "z=max, z=4, c=0,2 or t=0"


class ModelChoice(NamedTuple):
    """`version` is a number or an alias, and empty for the one in production."""

    name: str
    version: str = ""


def model_choice(text: str) -> ModelChoice:
    """From `NAME`, `NAME@ALIAS` or `NAME@NUMBER`. Raises ValueError."""
    name, at, version = text.partition("@")
    if not name or (at and not version):
        raise ValueError(f"{text!r} is not a model: give its name, or its name and version like cells@candidate or cells@2")
    return ModelChoice(name, version)


def request_fields(
    *, model: str | None, planes: Sequence[str], deadline: datetime | None, fresh: bool, **options: object
) -> dict[str, Any]:
    """The fields of a request with these choices; `options` are sent as they are. What is not chosen is left out. Raises ValueError."""
    name, version = model_choice(model) if model is not None else ModelChoice("")
    fields = {
        "model_name": name or None,
        "model_version": version or None,
        "planes": plane_choice(planes) or None,
        "deadline": deadline and deadline.isoformat(),
        "fresh": fresh or None,
        **options,
    }
    return {name: value for name, value in fields.items() if value is not None}


def refusal_of(choice: ModelChoice, models: Sequence[Mapping[str, Any]]) -> str:
    """Why a choice cannot be run; empty if it can. `models` is the answer of `GET /api/models?retired=true`."""
    model = next((one for one in models if one["name"] == choice.name), None)
    if model is None or model["retired"]:
        names = ", ".join(one["name"] for one in models if not one["retired"])
        problem = f"the model {choice.name} is retired" if model else f"there is no model {choice.name!r}"
        return f"{problem}; choose one of: {names or 'none is registered'}"
    numbers = [str(version["number"]) for version in model["versions"]]
    if (choice.version or PRODUCTION) in {*model["aliases"], *numbers}:
        return ""
    versions = ", ".join(f"{choice.name}@{one}" for one in [*sorted(model["aliases"]), *numbers])
    missing = f"version {choice.version!r}" if choice.version else "version in production"
    return f"the model {choice.name} has no {missing}; choose one of: {versions}"


def plane_choice(texts: Sequence[str]) -> dict[str, Any]:
    """`planes` of a request, from texts such as `z=max` and `c=0,2`. Raises ValueError."""
    planes: dict[str, Any] = {}
    for text in texts:
        axis, _, value = text.partition("=")
        if axis not in AXES or not value:
            raise ValueError(f"{text!r} names no planes: give for example {EXAMPLES}")
        if axis in planes:
            raise ValueError(f"{axis} is given twice. Separate several channels by commas, like c=0,2")
        planes[axis] = _planes_along(axis, value)
    return planes


def _planes_along(axis: str, value: str) -> object:
    if axis == "z" and value in set(Projection):
        return value
    parts = value.split(",")
    if not all(part.isdecimal() and part.isascii() for part in parts):
        others = ", or max or mean" if axis == "z" else ""
        raise ValueError(f"{axis}={value} is wrong: planes are numbers from 0{others}, such as {EXAMPLES}")
    numbers = [int(part) for part in parts]
    if axis != "c":
        if len(numbers) > 1:
            raise ValueError(f"{axis}={value} is wrong: only c may have several numbers")
        return numbers[0]
    if len(set(numbers)) != len(numbers) or len(numbers) > MAX_CHANNELS:
        raise ValueError(f"c={value} is wrong: give at most {MAX_CHANNELS} channels, each once")
    return numbers
