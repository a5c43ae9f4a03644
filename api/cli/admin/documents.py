"""The interfaces, described for those who call them."""

import click
import msgspec


@click.group()
def asyncapi() -> None:
    """The event stream, described for its consumers."""


@asyncapi.command("export")
def export_asyncapi() -> None:
    """Print the AsyncAPI document (JSON)."""
    from api.documents.asyncapi import document

    click.echo(msgspec.json.format(msgspec.json.encode(document()), indent=2))


@click.group()
def openapi() -> None:
    """The HTTP API, described for its clients."""


@openapi.command("export")
def export_openapi() -> None:
    """Print the OpenAPI document (JSON)."""
    from api.documents.openapi import document

    click.echo(msgspec.json.format(msgspec.json.encode(document()), indent=2))
