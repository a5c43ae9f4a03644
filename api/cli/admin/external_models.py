"""The command of the API's client that declares an external classifier."""

from collections.abc import Sequence

import click

from api.cli.commands import argument, command, json_option
from api.cli.common import API_URL
from api.cli.numbers import Fraction
from api.cli.output import print_fields, print_json
from api.cli.shapes import RegisteredVersion


def _labels(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    return [label.strip() for label in value.split(",")]


def _label_texts(_: click.Context, __: click.Parameter, pairs: Sequence[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for label, equals, text in (pair.partition("=") for pair in pairs):
        if not equals:
            raise click.BadParameter(f"{label!r} has no words: write LABEL=TEXT")
        if label in texts:
            raise click.BadParameter(f"{label!r} is given twice")
        texts[label] = text
    return texts


@command("add-external", example="bioscope models add-external vesicles --labels round,flat,other")
@argument("name", help="Name of the model: 1 to 64 of a-z, 0-9, - and _.")
@click.option("--labels", required=True, metavar="A,B,C", callback=_labels, help="All labels that the program can answer.")
@click.option(
    "--label-text",
    "label_texts",
    metavar="LABEL=TEXT",
    multiple=True,
    callback=_label_texts,
    help="One of the labels in words. Repeatable.",
)
@click.option("--review-below", type=Fraction(), default=0.0, show_default=True, help="A lower confidence needs review.")
@click.option("--description", metavar="TEXT", default="", help="What the program does.")
@json_option(RegisteredVersion)
@API_URL
def add_external(
    name: str,
    labels: list[str],
    label_texts: dict[str, str],
    review_below: float,
    description: str,
    url: str | None,
    *,
    as_json: bool,
) -> None:
    """Declare an external classifier, a program that answers over Kafka.

    The declaration is a version of a model, and its candidate. Nobody can know which network answers, and the version says so. The same
    declaration again is the same version. docs/models/external.md shows how the program is connected.
    """
    from api.cli.client import registry
    from api.cli.client.sign_in import open_client

    with open_client(url) as client:
        version = registry.declare(client, name, labels=labels, label_texts=label_texts, review_below=review_below, description=description)
    if as_json:
        print_json(version)
        return
    print_fields(
        [
            ("model", name),
            ("version", str(version.number)),
            ("declaration", f"sha256 {version.sha256}"),
            ("run it", f"bioscope classify FOLDER --model {name}@{version.number}"),
            ("promote it", f"bioscope models promote {name} {version.number} --reason TEXT"),
        ]
    )
