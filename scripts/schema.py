"""The current schema, as two SQL files, and the entity-relationship diagrams: from the migrations. `make schema` writes them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from scripts.catalog import Catalog, Column, Function, Grants, Relation, migrated_database, read_catalog
from scripts.erd import PAGE, page

FOLDER: Final = Path(__file__).parent.parent / "docs" / "schema"
SHORT: Final = {"timestamp with time zone": "timestamptz"}
STORAGES: Final = {"m": "main"}


class SchemaFile(NamedTuple):
    """A file of docs/schema, the schemas that it shows, and the lines that explain it."""

    name: str
    schemas: Sequence[str]
    about: str

    @property
    def path(self) -> Path:
        return FOLDER / self.name


SYSTEM: Final = SchemaFile(
    "system_schema.sql", ("es", "ops"), "The event store (es) and the state of the processes (ops): tables, functions and rights."
)
READ: Final = SchemaFile(
    "read_schema.sql", ("read",), "The read models. The procedure ops.create_read_models makes the same tables for a rebuild."
)
FILES: Final = (SYSTEM, READ)
HEADER: Final = """-- {about}
-- `make schema` writes this file from infrastructure/postgres/migrations. Do not edit it; rows that migrations insert are not shown.
"""


def sql(file: SchemaFile, catalog: Catalog) -> str:
    """The statements that make the schemas of a file, in an order in which Postgres accepts them."""
    before, after = _by_need(catalog)
    parts = [
        HEADER.format(about=file.about),
        "set check_function_bodies = off;\n" if catalog.functions else "",
        "".join(f"create schema {schema};\n" for schema in file.schemas),
        *map(_function, before),
        *map(_relation, sorted(catalog.relations, key=_needs_others)),
        *map(_function, after),
        "".join(f"revoke execute on {_function_name(function)} from public;\n" for function in catalog.functions if function.is_private),
        "".join(map(_grant, catalog.grants)),
    ]
    return "\n".join(part for part in parts if part)


def _by_need(catalog: Catalog) -> tuple[list[Function], list[Function]]:
    """The functions that triggers call, which come before the tables, and the others."""
    called = {
        name for relation in catalog.relations for trigger in relation.triggers for name in re.findall(r"EXECUTE FUNCTION (\S+)\(", trigger)
    }
    before = [function for function in catalog.functions if function.signature.partition("(")[0] in called]
    return before, [function for function in catalog.functions if function not in before]


def _needs_others(relation: Relation) -> tuple[bool, bool, bool]:
    has_foreign_key = any(constraint.kind == "f" for constraint in relation.constraints)
    return relation.kind == "v", relation.parent is not None, has_foreign_key


def _relation(relation: Relation) -> str:
    comment = f"-- {relation.comment}\n" if relation.comment else ""
    if relation.query is not None:
        return f"{comment}create view {relation.full_name} as\n{relation.query}\n"
    options = f" with ({', '.join(relation.options)})" if relation.options else ""
    partitioned = f" partition by {relation.partition_key.lower()}" if relation.partition_key else ""
    attached = (
        f"alter table {relation.parent} attach partition {relation.full_name} {relation.bounds.lower()};\n" if relation.parent else ""
    )
    storages = "".join(
        f"alter table {relation.full_name} alter column {column.name} set storage {STORAGES[column.storage]};\n"
        for column in relation.columns
        if column.storage
    )
    return (
        f"{comment}create table {relation.full_name} (\n{_columns(relation)}\n){options}{partitioned};\n{storages}"
        + "".join(f"{_lower(text)};\n" for text in (*relation.indexes,))
        + attached
        + "".join(f"{_lower(text)};\n" for text in relation.triggers)
    )


def _columns(relation: Relation) -> str:
    """One line for each column and each constraint, with the comments in one column of the text."""
    names = max(len(column.name) for column in relation.columns)
    lines = [(f"  {column.name.ljust(names)} {_column(column)}", column.comment) for column in relation.columns]
    lines += [
        ("  " + ("" if one.name == relation.name + "_pkey" else f"constraint {one.name} ") + _lower(one.definition), None)
        for one in relation.constraints
    ]
    width = max(len(line) for line, comment in lines if comment) + 1 if any(comment for _, comment in lines) else 0
    ends = [","] * (len(lines) - 1) + [""]
    return "\n".join(
        f"{line}{end}".ljust(width) + f"  -- {comment}" if comment else f"{line}{end}"
        for (line, comment), end in zip(lines, ends, strict=True)
    )


def _column(column: Column) -> str:
    collation = f" collate {column.collation}" if column.collation else ""
    not_null = " not null" if column.not_null else ""
    default = f" default {column.default}" if column.default else ""
    return f"{SHORT.get(column.type, column.type)}{collation}{not_null}{default}"


def _function(function: Function) -> str:
    return f"{function.definition.rstrip()};\n"


def _function_name(function: Function) -> str:
    return f"{'procedure' if function.kind == 'p' else 'function'} {function.signature}"


def _grant(grants: Grants) -> str:
    return f"grant {grants.privileges} on {grants.on} to {', '.join(grants.roles)};\n"


KEYWORDS: Final = re.compile(
    r"\b(CREATE|UNIQUE|INDEX|USING|WHERE|INCLUDE|PRIMARY KEY|FOREIGN KEY|REFERENCES|ON DELETE CASCADE|CHECK|TRIGGER|AFTER|BEFORE|INSERT"
    r"|UPDATE|DELETE|TRUNCATE|REFERENCING|OLD|NEW|TABLE|AS|FOR EACH STATEMENT|EXECUTE FUNCTION|ON|ONLY|OR|AND|NOT|IS|NULL|ANY|ARRAY)\b"
)


def _lower(definition: str) -> str:
    """A definition with the keywords of SQL in lower case, as in the migrations; texts in quotes stay."""
    parts = re.split(r"('[^']*')", definition)
    return "".join(part if part.startswith("'") else KEYWORDS.sub(lambda found: found[0].lower(), part) for part in parts)


def documents() -> Iterator[tuple[Path, str]]:
    """Each generated file, and its text."""
    with migrated_database() as connection:
        catalogs = {file: read_catalog(connection, *file.schemas) for file in FILES}
    for file, catalog in catalogs.items():
        yield file.path, sql(file, catalog)
    yield PAGE, page([relation for catalog in catalogs.values() for relation in catalog.relations])


if __name__ == "__main__":
    for path, text in documents():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
