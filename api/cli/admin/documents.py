"""Export the documents that describe the interfaces."""

from typing import Any

from api.cli.commands import group, json_option
from api.cli.output import print_json


@group()
def asyncapi() -> None:
    """Export the description of the event stream (AsyncAPI)."""


@asyncapi.command("export", example="bioscope asyncapi export > asyncapi.json")
@json_option(dict[str, Any])
def export_asyncapi(*, as_json: bool) -> None:  # noqa: ARG001 - its only format
    """Print the AsyncAPI document.

    The output is always JSON; --json changes nothing.
    """
    from api.documents.asyncapi import document

    print_json(document())


@group()
def openapi() -> None:
    """Export the description of the HTTP API (OpenAPI)."""


@openapi.command("export", example="bioscope openapi export > openapi.json")
@json_option(dict[str, Any])
def export_openapi(*, as_json: bool) -> None:  # noqa: ARG001 - its only format
    """Print the OpenAPI document.

    The output is always JSON; --json changes nothing.
    """
    from api.documents.openapi import document

    print_json(document())
