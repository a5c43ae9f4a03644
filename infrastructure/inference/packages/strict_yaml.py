"""YAML as a manifest needs it: one document of the core schema of YAML 1.2, without tags, anchors, aliases and duplicate keys.

Values are built from the parser's events, so that nothing is constructed before it was checked. PyYAML's own loaders follow YAML 1.1:
they read the label `no` as false, and `1e-4` as text.
"""

import re
from typing import Any, Final

import msgspec
import yaml

from infrastructure.inference.models.refusals import PackageRefused, RefusalCode, shown

MAX_NUMBER_CHARACTERS: Final = 30
"""A longer one is text: a digest of digits alone is no number."""

CONSTANTS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((f"{sign}.{name}" for sign in ("", "+") for name in ("inf", "Inf", "INF")), float("inf")),
    **dict.fromkeys((f"-.{name}" for name in ("inf", "Inf", "INF")), float("-inf")),
}
INTEGER: Final = re.compile(r"[-+]?[0-9]+")
OTHER_BASES: Final = ((re.compile(r"0o[0-7]+"), 8), (re.compile(r"0x[0-9a-fA-F]+"), 16))
NUMBER: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`nodes`: values and keys; `depth`: of lists and mappings in each other."""

    file_bytes: int = 1024**2
    nodes: int = 100_000
    depth: int = 24


def load_yaml(data: bytes, *, file: str, limits: YamlLimits) -> Any:
    """The document as dicts with text keys, lists, texts, numbers, booleans and None. Raises PackageRefused; `file` names it there."""
    if len(data) > limits.file_bytes:
        raise PackageRefused(RefusalCode.YAML_TOO_LARGE, f"it has {len(data):,} bytes; the limit is {limits.file_bytes:,}", file=file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PackageRefused(RefusalCode.YAML_ENCODING, f"it is not UTF-8: byte {error.start + 1:,} is wrong", file=file) from None
    document = _Document(file, limits)
    try:
        for event in yaml.parse(text, Loader=LOADER):
            document.take(event)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1} " if error.problem_mark else ""
        code = RefusalCode.YAML_TOO_DEEP if "nesting depth" in str(error.problem) else RefusalCode.YAML_SYNTAX
        raise PackageRefused(code, f"{line}is not YAML: {shown(str(error.problem))}", file=file) from None
    except yaml.YAMLError:
        raise PackageRefused(RefusalCode.YAML_SYNTAX, "it holds characters that YAML does not allow", file=file) from None
    return document.root


class _Level:
    """A list or mapping that is being read; `key` is that of the next value."""

    def __init__(self, container: dict[str, Any] | list[Any]) -> None:
        self.container = container
        self.key: str | None = None


class _Document:
    def __init__(self, file: str, limits: YamlLimits) -> None:
        self.root: Any = None
        self._file, self._limits = file, limits
        self._levels: list[_Level] = []
        self._nodes = self._documents = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._refused(RefusalCode.YAML_SYNTAX, event, "begins a second document; only one is read")
            case yaml.AliasEvent():
                raise self._refused(RefusalCode.YAML_ANCHOR, event, "uses an alias (*): write the value out")
            case yaml.NodeEvent():
                self._check(event)
                self._take_node(event)
            case yaml.CollectionEndEvent():
                self._add(self._levels.pop().container, event)

    def _take_node(self, event: yaml.NodeEvent) -> None:
        if isinstance(event, yaml.ScalarEvent):
            if self._is_key():
                self._set_key(event)
            else:
                self._add(_scalar(event.value) if _is_plain(event) else event.value, event)
            return
        if self._is_key():
            raise self._refused(RefusalCode.YAML_SYNTAX, event, "has a list or mapping as a key; a key is a text")
        if len(self._levels) >= self._limits.depth:
            raise self._refused(RefusalCode.YAML_TOO_DEEP, event, f"is nested more than {self._limits.depth} deep")
        self._levels.append(_Level({} if isinstance(event, yaml.MappingStartEvent) else []))

    def _check(self, event: yaml.NodeEvent) -> None:
        self._nodes += 1
        if self._nodes > self._limits.nodes:
            raise self._refused(RefusalCode.YAML_TOO_LARGE, event, f"is beyond the limit of {self._limits.nodes:,} values")
        if event.anchor is not None:
            raise self._refused(RefusalCode.YAML_ANCHOR, event, "has an anchor (&): write the value out where it is used")
        if getattr(event, "tag", None) is not None:
            raise self._refused(RefusalCode.YAML_TAG, event, "has a tag (!): tags are not read")

    def _is_key(self) -> bool:
        return bool(self._levels) and isinstance(self._levels[-1].container, dict) and self._levels[-1].key is None

    def _set_key(self, event: yaml.ScalarEvent) -> None:
        level = self._levels[-1]
        if event.value in level.container:
            raise self._refused(RefusalCode.YAML_DUPLICATE_KEY, event, f"has the key `{shown(event.value)}` a second time")
        level.key = event.value

    def _add(self, value: Any, event: yaml.Event) -> None:
        if not self._levels:
            self.root = value
            return
        level = self._levels[-1]
        if isinstance(level.container, list):
            level.container.append(value)
        elif level.key is None:
            raise self._refused(RefusalCode.YAML_SYNTAX, event, "has no key")
        else:
            level.container[level.key], level.key = value, None

    def _refused(self, code: RefusalCode, event: yaml.Event, detail: str) -> PackageRefused:
        assert event.start_mark is not None
        return PackageRefused(code, f"line {event.start_mark.line + 1} {detail}", file=self._file)


def _is_plain(event: yaml.ScalarEvent) -> bool:
    """Not in quotes, nor a block of text."""
    return bool(event.implicit[0])


def _scalar(text: str) -> Any:
    """A plain scalar by the core schema of YAML 1.2."""
    if text in CONSTANTS:
        return CONSTANTS[text]
    if len(text) > MAX_NUMBER_CHARACTERS:
        return text
    if INTEGER.fullmatch(text):
        return int(text)
    for pattern, base in OTHER_BASES:
        if pattern.fullmatch(text):
            return int(text[2:], base)
    return float(text) if NUMBER.fullmatch(text) else text
