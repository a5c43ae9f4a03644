"""The structure of a TIFF (TIFF 6.0, BigTIFF): directories, their values and their data, in any byte order and any arrangement.

Any combination of tags is written, valid or not.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate

import msgspec

ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 2, 3, 4, 5, 7, 16
LAYOUTS = {ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "II", UNDEFINED: "B", LONG8: "Q"}
SUB_IFDS = 330

Values = Sequence[int] | bytes


class Tag(msgspec.Struct, frozen=True):
    """`values`: of a RATIONAL, numerators and denominators in turn."""

    kind: int
    values: Values

    @property
    def count(self) -> int:
        return len(self.values) // len(LAYOUTS[self.kind])


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """`tags` by number, without the offsets of the data, which become `offsets_tag`; `data`: strips or tiles, stored one behind the other;
    `levels`: directories below this one, listed in its tag SubIFDs."""

    tags: dict[int, Tag]
    offsets_tag: int
    data: tuple[bytes, ...]
    levels: tuple["Directory", ...] = ()


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """`layout`: see `TiffEncoding`."""

    little: bool = True
    big: bool = False
    layout: str = "directories first"

    @property
    def word(self) -> str:
        return "Q" if self.big else "I"

    @property
    def header_size(self) -> int:
        return 16 if self.big else 8

    @property
    def entry_size(self) -> int:
        return 20 if self.big else 12

    @property
    def word_kind(self) -> int:
        return LONG8 if self.big else LONG

    def pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(("<" if self.little else ">") + layout, *values)


class _Node(msgspec.Struct, frozen=True):
    """A directory of the file; `levels` and `following` are indices of others."""

    directory: Directory
    levels: Sequence[int] = ()
    following: int | None = None


class _Starts(msgspec.Struct, frozen=True):
    """Where a directory and its data begin, in bytes from the start of the file."""

    directory: int = 0
    data: int = 0


def tiff_bytes(pages: Sequence[Directory], form: Form) -> bytes:
    """A whole file, whose main chain is `pages`."""
    nodes = _nodes(pages)
    unplaced = [_Starts()] * len(nodes)
    sizes = [(len(_directory(node, unplaced, index, form)), sum(map(len, node.directory.data))) for index, node in enumerate(nodes)]
    starts = _placed(sizes, form)
    file = bytearray(_header(starts[0].directory, form))
    for index, is_data in _order(len(nodes), form.layout):
        at = starts[index].data if is_data else starts[index].directory
        file += bytes(at - len(file))
        file += b"".join(nodes[index].directory.data) if is_data else _directory(nodes[index], starts, index, form)
    return bytes(file)


def _nodes(pages: Sequence[Directory]) -> list[_Node]:
    """Each page, and the levels below it right after it."""
    nodes: list[_Node] = []
    for number, page in enumerate(pages, 1):
        after = len(nodes) + 1 + len(page.levels)
        nodes.append(_Node(page, range(len(nodes) + 1, after), after if number < len(pages) else None))
        nodes.extend(map(_Node, page.levels))
    return nodes


def _order(count: int, layout: str) -> Iterator[tuple[int, bool]]:
    """Indices of directories, and whether their data is meant, as they stand in the file."""
    match layout:
        case "directories last":
            yield from ((index, is_data) for is_data in (True, False) for index in range(count))
        case "backwards":
            yield from ((index, is_data) for index in reversed(range(count)) for is_data in (True, False))
        case _:
            yield from ((index, is_data) for index in range(count) for is_data in (False, True))


def _placed(sizes: Sequence[tuple[int, int]], form: Form) -> list[_Starts]:
    """`sizes` of each directory and of its data. All begin at even addresses."""
    at = form.header_size
    found = [[0, 0] for _ in sizes]
    for index, is_data in _order(len(sizes), form.layout):
        found[index][is_data] = at
        at += sizes[index][is_data] + sizes[index][is_data] % 2
    return [_Starts(*pair) for pair in found]


def _header(first: int, form: Form) -> bytes:
    mark = b"II" if form.little else b"MM"
    return mark + (form.pack("HHHQ", 43, 8, 0, first) if form.big else form.pack("HI", 42, first))


def _directory(node: _Node, starts: Sequence[_Starts], index: int, form: Form) -> bytes:
    """The directory with the values that do not fit into its entries behind it."""
    tags = _all_tags(node, starts, index, form)
    count = form.pack("Q" if form.big else "H", len(tags))
    values_at = starts[index].directory + len(count) + len(tags) * form.entry_size + struct.calcsize(form.word)
    entries, values = bytearray(), bytearray()
    for number, tag in tags:
        body = _body(tag, form)
        entries += form.pack(f"HH{form.word}", number, tag.kind, tag.count)
        if len(body) <= struct.calcsize(form.word):
            entries += body.ljust(struct.calcsize(form.word), b"\0")
        else:
            entries += form.pack(form.word, values_at + len(values))
            values += body + bytes(len(body) % 2)
    following = 0 if node.following is None else starts[node.following].directory
    return count + entries + form.pack(form.word, following) + values


def _all_tags(node: _Node, starts: Sequence[_Starts], index: int, form: Form) -> list[tuple[int, Tag]]:
    data = node.directory.data
    offsets = list(accumulate(map(len, data[:-1]), initial=starts[index].data))
    tags = {**node.directory.tags, node.directory.offsets_tag: Tag(form.word_kind, offsets)}
    if node.levels:
        tags[SUB_IFDS] = Tag(form.word_kind, [starts[level].directory for level in node.levels])
    return sorted(tags.items())


def _body(tag: Tag, form: Form) -> bytes:
    if isinstance(tag.values, bytes):
        return tag.values
    return form.pack(LAYOUTS[tag.kind][0] * len(tag.values), *tag.values)
