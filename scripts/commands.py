"""docs/commands.md, from the parser of the command line and the types of its JSON. `make commands` writes it."""

import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from textwrap import fill
from typing import Any, Final

import click
from msgspec import inspect

from api.cli import main
from api.cli.commands import Argument, Command, Context, JsonOption, SettingOption
from api.cli.exit_codes import MEANINGS

PAGE: Final = Path(__file__).parent.parent / "docs" / "commands.md"
WIDTH: Final = 100
HEAD: Final = r"""# Command line

<!-- `make commands` writes this page from the command line itself. Do not edit it. -->

`bioscope --help` lists the commands, `bioscope COMMAND --help` explains one and gives an example.
Commands are written here as they work in a checkout of the source, after `make setup`.

## Output

Data is printed on stdout; messages, prompts and progress are printed on stderr. On a terminal, and
where `COLUMNS` is set, lines fit its width and are broken between words only. A table that does not
fit becomes a block of lines for each row. In a file or a pipe, tables have any width.

`--json` prints the data as JSON. Each shape is stable: fields are added, never renamed or removed.
Times are RFC 3339 in UTC. The [types](#json-types) are listed at the end of this page.

## Data folder

Commands on the server's machine need the data folder of the installation. It is, in this order, the
value of `--data` (`bioscope --data FOLDER COMMAND` works, too), that of `BIOSCOPE_DATA`, or
`.bioscope` in the current folder. `--help` shows the current value of each such variable.

## Shell completion

Add one line to the start-up file of your shell, and start a new shell. The tab key then completes
commands, options, choices and paths. bash needs version 4.4 or newer.

| shell | file | line |
|---|---|---|
| bash | `~/.bashrc` | `eval "$(bioscope completion bash)"` |
| zsh | `~/.zshrc`, after `compinit` | `eval "$(bioscope completion zsh)"` |
| fish | `~/.config/fish/config.fish` | `bioscope completion fish \| source` |

## Exit codes
"""


def page() -> str:
    parts = [HEAD, *(_exit_codes()), *(part for title, names in main.sections.items() for part in _section(title, names)), *_types()]
    return "\n".join(parts).rstrip() + "\n"


def commands() -> Iterator[tuple[str, Command]]:
    """Each command that is not a group, with its name as it is typed."""
    for names in main.sections.values():
        for name in names:
            yield from _leaves(f"bioscope {name}", main.commands[name])


def shapes() -> dict[str, JsonOption]:
    """The option `--json` of each command that has it."""
    return {name: option for name, command in commands() for option in command.params if isinstance(option, JsonOption)}


def _leaves(name: str, command: click.Command) -> Iterator[tuple[str, Command]]:
    if isinstance(command, click.Group):
        for inner, leaf in command.commands.items():
            yield from _leaves(f"{name} {inner}", leaf)
    else:
        assert isinstance(command, Command)
        yield name, command


def _exit_codes() -> list[str]:
    return ["| code | meaning |", "|---|---|", *(f"| {code} | {meaning} |" for code, meaning in MEANINGS.items()), ""]


def _section(title: str, names: list[str]) -> Iterator[str]:
    yield f"## {title}\n"
    for name in names:
        command, heading = main.commands[name], "###"
        if isinstance(command, click.Group):
            yield f"### bioscope {name}\n"
            yield _text(command)
            heading = "####"
        for full_name, leaf in _leaves(f"bioscope {name}", command):
            yield f"{heading} {full_name}\n"
            yield from _command(full_name, leaf)


def _command(name: str, command: Command) -> Iterator[str]:
    ctx = Context(command, info_name=name, color=False)
    yield _text(command)
    yield f"```sh\n{command.example}\n```\n"
    usage = " ".join([name, *command.collect_usage_pieces(ctx)])
    yield f"Usage: `{usage}`\n"
    items = [f"`{one.make_metavar(ctx)}`: {one.explanation}" for one in command.params if isinstance(one, Argument)]
    items += [_option(one, ctx) for one in command.params if isinstance(one, click.Option)]
    items += [f"`{variable}` in the environment: {meaning}" for variable, meaning in command.variables.items()]
    if items:
        yield "\n".join(_item(item) for item in items) + "\n"


def _option(option: click.Option, ctx: click.Context) -> str:
    record = click.Option.get_help_record(option, ctx)
    assert record is not None
    names, text = record
    if isinstance(option, SettingOption):
        text += f" [env: `{option.variable}`; default: {option.fallback}]"
    if isinstance(option, JsonOption):
        text = f"Print {'on each line ' if option.lines else ''}{_printed(option.shape)} as JSON."
    return f"`{names}`: {text}"


def _printed(shape: Any) -> str:
    described = inspect.type_info(shape)
    match described:
        case inspect.StructType():
            return _one(described)
        case inspect.ListType():
            return f"a list of {_type(described.item_type)}"
        case inspect.DictType(value_type=inspect.AnyType()):
            return "an object"
        case inspect.DictType():
            return f"an object with {_one(described.value_type)} for each name"
    raise NotImplementedError(shape)


def _one(described: inspect.StructType) -> str:
    article = "an" if described.cls.__name__.startswith(tuple("AEIOU")) else "a"
    return f"{article} {_type(described)}"


def _types() -> Iterator[str]:
    yield "## JSON types\n"
    found: dict[str, inspect.StructType] = {}
    for option in shapes().values():
        _collect(inspect.type_info(option.shape), found)
    for name in sorted(found):
        struct = found[name]
        yield f"### {name}\n"
        yield _wrapped(cleandoc(struct.cls.__doc__ or "")) + "\n"
        yield "| field | type | meaning |\n|---|---|---|"
        yield from (f"| `{field.encode_name}` | {_type(field.type)} | {_meaning(field.type)} |" for field in struct.fields)
        yield ""


def _collect(described: Any, found: dict[str, inspect.StructType]) -> None:
    match described:
        case inspect.StructType():
            if found.setdefault(described.cls.__name__, described).cls is not described.cls:
                raise ValueError(described.cls)
            for field in described.fields:
                _collect(field.type, found)
        case inspect.Metadata():
            _collect(described.type, found)
        case inspect.ListType() | inspect.VarTupleType():
            _collect(described.item_type, found)
        case inspect.DictType():
            _collect(described.value_type, found)
        case inspect.UnionType():
            for each in described.types:
                _collect(each, found)


NAMES: Final = {
    inspect.AnyType: "any",
    inspect.BoolType: "true or false",
    inspect.DateTimeType: "time",
    inspect.DateType: "date",
    inspect.FloatType: "number",
    inspect.IntType: "integer",
    inspect.NoneType: "null",
    inspect.StrType: "text",
    inspect.UUIDType: "id",
}


def _type(described: Any) -> str:
    match described:
        case inspect.Metadata():
            return _type(described.type)
        case inspect.StructType():
            name = described.cls.__name__
            return f"[{name}](#{name.lower()})"
        case inspect.ListType() | inspect.VarTupleType():
            return f"list of {_type(described.item_type)}"
        case inspect.TupleType():
            return f"list of {len(described.item_types)}: {', '.join(map(_type, described.item_types))}"
        case inspect.DictType():
            return "object"
        case inspect.UnionType():
            return " or ".join(map(_type, described.types))
        case inspect.EnumType():
            return " or ".join(f"`{member.value}`" for member in described.cls)
        case inspect.LiteralType():
            return " or ".join(f"`{value}`" for value in described.values)
    return NAMES[type(described)]


def _meaning(described: Any) -> str:
    if isinstance(described, inspect.Metadata):
        return str((described.extra_json_schema or {}).get("description", ""))
    return ""


def _text(command: click.Command) -> str:
    """The help of a command; paragraphs that begin with \\b are printed as they are."""
    paragraphs = [paragraph.partition("\n") for paragraph in cleandoc(command.help or "").split("\n\n")]
    texts = [f"```text\n{cleandoc(rest)}\n```" if first == "\b" else _wrapped(f"{first} {rest}") for first, _, rest in paragraphs]
    return "\n\n".join(texts) + "\n"


def _wrapped(text: str) -> str:
    return fill(re.sub(r"\s+", " ", text), WIDTH, break_long_words=False, break_on_hyphens=False)


def _item(text: str) -> str:
    return fill(f"- {text}", WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
