"""Commands that explain themselves: arguments, environment variables and an example in the help, suggestions for misspelled names."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from inspect import cleandoc
from itertools import zip_longest
from pkgutil import resolve_name
from typing import Any, Final, TypeVar

import click

from api.cli.errors import friendly_errors
from api.cli.output import err, fitted, line_width
from domain.values import printable
from infrastructure.configuration.urls import shown_origin

MAX_SUGGESTIONS: Final = 3
EXAMPLE_ID: Final = "74e02ed7-defc-5b5f-96eb-de056419e140"
COLUMN_WIDTH: Final = 30  # of names in help; a longer one has a line of its own

F = TypeVar("F", bound=Callable[..., Any])


class HelpFormatter(click.HelpFormatter):
    """Breaks lines between words only, so that names, paths and commands stay whole."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        start = f"{prefix or 'Usage: '}{prog}"
        self.write(fitted(f"{start} {args}", self.width, indent=" " * (len(start) + 1)) + "\n")

    def write_text(self, text: str) -> None:
        """A paragraph that begins with a line of \\b keeps its lines."""
        indent = " " * self.current_indent
        for number, paragraph in enumerate(text.split("\n\n")):
            if number:
                self.write("\n")
            first, _, rest = paragraph.partition("\n")
            lines = rest.split("\n") if first == "\b" else fitted(" ".join(paragraph.split()), self.width - len(indent)).split("\n")
            self.write("".join(f"{indent}{line}\n" for line in lines))

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = COLUMN_WIDTH, col_spacing: int = 2) -> None:
        column = min(max((len(name) for name, _ in rows), default=0), col_max) + col_spacing
        indent = " " * self.current_indent
        for name, text in rows:
            names = [name] if len(name) + col_spacing <= column else [name, ""]
            lines = [*[""] * (len(names) - 1), *fitted(text, self.width - column - len(indent)).split("\n")]
            for first, line in zip_longest(names, lines, fillvalue=""):
                self.write(f"{indent}{first:{column}}{line}".rstrip() + "\n")


class Context(click.Context):
    formatter_class = HelpFormatter


class Argument(click.Argument):
    def __init__(self, *names: Any, help: str, **attributes: Any) -> None:  # noqa: A002 - as click's options call it
        super().__init__(*names, **attributes)
        self.help = help

    @property
    def explanation(self) -> str:
        return f"{self.help} [{'|'.join(self.type.choices)}]" if isinstance(self.type, Choice) else self.help


class Choice(click.Choice[str]):
    """Suggests the nearest value for a wrong one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            error.message += _did_you_mean(get_close_matches(str(value).casefold(), self.choices, n=1))
            raise


class SettingOption(click.Option):
    """An option that overrides an environment variable; `fallback` is the default without both."""

    def __init__(self, *names: Any, variable: str, fallback: str, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.variable, self.fallback = variable, fallback

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None:
            return None
        value = os.environ.get(self.variable)
        current = "not set" if value is None else f"now {printable(shown_origin(value))}"
        return record[0], f"{record[1]} [env: {self.variable}, {current}; default: {self.fallback}]"


class JsonOption(click.Option):
    """`--json`. `shape` is the type of what is printed, or its name as `module:Type`; `lines` means one on each line."""

    def __init__(self, *names: Any, shape: Any, lines: bool = False, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self._shape, self.lines = shape, lines

    @property
    def shape(self) -> Any:
        return resolve_name(self._shape) if isinstance(self._shape, str) else self._shape


class Id(click.types.UUIDParameterType):
    """`hint` says where to find ids."""

    name = "id"

    def __init__(self, *, hint: str = "") -> None:
        self._hint = hint

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not an id. Ids look like {EXAMPLE_ID}. {self._hint}".rstrip(), param, ctx)


class Command(click.Command):
    """`example` works as it stands. `variables` are environment variables that the command reads itself, with their meanings."""

    context_class = Context

    def __init__(self, *names: Any, example: str, variables: Mapping[str, str] | None = None, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.example, self.variables = example, variables or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        arguments = [(one.make_metavar(ctx), one.explanation) for one in self.params if isinstance(one, Argument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        super().format_options(ctx, formatter)
        if self.variables:
            with formatter.section("Environment"):
                formatter.write_dl([(name, f"{meaning} [{_is_set(name)}]") for name, meaning in self.variables.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Example"):
            formatter.write_text(f"\b\n{self.example}")

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.find_root().params.get("data") is not None and "data" not in ctx.params:
            ctx.fail(f"{ctx.command_path} does not take --data.")
        return super().invoke(ctx)


class Group(click.Group):
    """Its help shows the whole first sentence of each command, in the order in which the commands were added."""

    context_class = Context
    command_class = Command
    group_class = type

    def __init__(self, *names: Any, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.sections: dict[str, list[str]] = {}

    def add_section(self, title: str, *commands: click.Command) -> None:
        for command in commands:
            self.add_command(command)
        self.sections[title] = [str(command.name) for command in commands]

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        width = max(map(len, self.commands))
        for title, names in (self.sections or {"Commands": list(self.commands)}).items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:{width}}", summary(self.commands[name])) for name in names])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as unknown:
            unknown.message += _did_you_mean(self._suggestions(ctx, args[0]))
            raise

    def _suggestions(self, ctx: click.Context, wrong: str) -> list[str]:
        """Commands of this group with a similar name, otherwise such commands of other groups."""
        if here := get_close_matches(wrong, self.commands, n=MAX_SUGGESTIONS):
            return here
        everywhere = list(all_commands(ctx.find_root().command))
        names = get_close_matches(wrong, {str(command.name) for _, command in everywhere}, n=1)
        return [path for path, command in everywhere if command.name in names][:MAX_SUGGESTIONS]


class CommandLine(Group):
    """The root of all commands: no operator error ends in a traceback, and no message is broken within a word."""

    def make_context(self, *arguments: Any, **keywords: Any) -> click.Context:
        with _whole_usage_errors():
            return super().make_context(*arguments, **keywords)

    def invoke(self, ctx: click.Context) -> Any:
        with friendly_errors(), _whole_usage_errors():
            return super().invoke(ctx)


def summary(command: click.Command) -> str:
    """The first paragraph of a command's help."""
    return " ".join(cleandoc(command.help or "").partition("\n\n")[0].split())


def all_commands(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Each command that is not a group, with its name as it is typed after `bioscope`."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from all_commands(inner, f"{path} {name}".strip())


class _UsageError(click.UsageError):
    prefix: Final = "Error: "

    def format_message(self) -> str:
        return fitted(self.prefix + super().format_message(), line_width(err)).removeprefix(self.prefix)


@contextmanager
def _whole_usage_errors() -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.NoSuchOption as error:
        raise _UsageError(f"{error.message}.{_did_you_mean(error.possibilities or ())}", error.ctx) from None
    except click.UsageError as error:
        raise _UsageError(error.format_message(), error.ctx) from None


def _did_you_mean(names: Sequence[str]) -> str:
    if not names:
        return ""
    quoted = [f"'{name}'" for name in names]
    return f" Did you mean {' or '.join(filter(None, (', '.join(quoted[:-1]), quoted[-1])))}?"


def _is_set(variable: str) -> str:
    """Such variables may hold secrets, which are not shown."""
    return "set" if os.environ.get(variable) else "not set"


def command(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    return click.command(name, cls=Command, **attributes)


def group(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Group]:
    return click.group(name, cls=Group, **attributes)


def argument(name: str, *, help: str, **attributes: Any) -> Callable[[F], F]:  # noqa: A002 - as click's options call it
    return click.argument(name, cls=Argument, help=help, **attributes)


def json_option(shape: Any, *, lines: bool = False, name: str = "as_json", **attributes: Any) -> Callable[[F], F]:
    text = "Print JSON, one object on each line." if lines else "Print JSON."
    return click.option("--json", name, cls=JsonOption, shape=shape, lines=lines, help=text, **{"is_flag": True} | attributes)
