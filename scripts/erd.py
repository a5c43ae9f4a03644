"""docs/ERD.md: entity-relationship diagrams in Mermaid, one for each package that owns tables."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from scripts.catalog import Column, Relation

DOCS: Final = Path(__file__).parent.parent / "docs"
PAGE: Final = DOCS / "ERD.md"
OWNERS: Final = DOCS / "architecture.md"
TABLE_NAME: Final = re.compile(r"`((?:es|ops|read)\.\w+)`")
PACKAGE: Final = re.compile(r"`((?:infrastructure|projections)(?:/[\w.]+)*)`")
REFERENCE: Final = re.compile(r"Refers to (?:(\w+)\.)?(\w+)\.")
HEADER: Final = """# Tables and their relations

`make schema` writes this page from the migrations in `infrastructure/postgres/migrations/`. The same
tables as SQL are in [schema/system_schema.sql](schema/system_schema.sql) and
[schema/read_schema.sql](schema/read_schema.sql).
[architecture.md](architecture.md#who-owns-which-table) lists the owner of each table.

The relations are logical. Only `ops.known_addresses` has a foreign key, because read models are
derived from the log and filled in its order. PK marks the primary key, FK a column that refers to
another table. Tables of another package are shown without columns. Views are not shown: the only
one, `read.visible`, joins `read.effective_access` with the datasets that are not deleted.
"""


class Reference(NamedTuple):
    """A column that names rows of another table."""

    relation: Relation
    column: Column
    target: str


def owners(text: str) -> Mapping[str, str]:
    """The package that owns each table, from the tables of docs/architecture.md: a folder such as `infrastructure/relay`."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            first, *_, last = (cell.strip() for cell in line.strip("|").split("|"))
            package = PACKAGE.search(last)
            found |= {name: _folder(package[1]) if package else last for name in TABLE_NAME.findall(first)}
    return found


def _folder(path: str) -> str:
    folder = path.rpartition("/")[0] if path.endswith(".py") else path
    return "/".join(folder.split("/")[:2])


def page(relations: Sequence[Relation]) -> str:
    """Raises KeyError for a table without an owner in docs/architecture.md."""
    tables = [relation for relation in relations if relation.parent is None and relation.kind != "v"]
    owned_by = owners(OWNERS.read_text())
    found = references(tables)
    packages = dict.fromkeys(owned_by[table.full_name] for table in tables)
    sections = [
        _section(package, [table for table in tables if owned_by[table.full_name] == package], found) for package in sorted(packages)
    ]
    return "\n".join([HEADER, *sections])


def references(tables: Iterable[Relation]) -> list[Reference]:
    found = ((table, column, REFERENCE.search(column.comment or "")) for table in tables for column in table.columns)
    return [Reference(table, column, f"{to[1] or table.schema}.{to[2]}") for table, column, to in found if to]


def _section(package: str, tables: Sequence[Relation], found: Sequence[Reference]) -> str:
    names = {table.full_name for table in tables}
    own = [one for one in found if one.relation.full_name in names]
    lines = [_entity(table, {one.column.name for one in own if one.relation == table}) for table in tables]
    lines += map(_relation, own)
    described = "\n".join(f"- `{table.full_name}`: {table.comment}" for table in tables)
    return f"## {package}\n\n{described}\n\n```mermaid\nerDiagram\n" + "\n".join(lines) + "\n```\n"


def _relation(reference: Reference) -> str:
    how_many = "||" if reference.column.not_null else "|o"
    return f"  {_entity_name(reference.target)} {how_many}--o{{ {_entity_name(reference.relation.full_name)} : {reference.column.name}"


def _entity(table: Relation, foreign: set[str]) -> str:
    columns = "\n".join(
        f"    {_attribute(column, is_key=column.name in table.key, is_foreign=column.name in foreign)}" for column in table.columns
    )
    return f"  {_entity_name(table.full_name)} {{\n{columns}\n  }}"


def _attribute(column: Column, *, is_key: bool, is_foreign: bool) -> str:
    keys = ", ".join(name for name, applies in (("PK", is_key), ("FK", is_foreign)) if applies)
    comment = f'"{column.comment}"' if column.comment else ""
    return " ".join(part for part in (TYPES.get(column.type, column.type), column.name, keys, comment) if part)


def _entity_name(full_name: str) -> str:
    return f'"{full_name}"'


TYPES: Final = {
    "timestamp with time zone": "timestamptz",
    "double precision": "float8",
    "text[]": "text_array",
    "uuid[]": "uuid_array",
    "integer[]": "integer_array",
}
"""Names that Mermaid accepts as a type: one word."""
