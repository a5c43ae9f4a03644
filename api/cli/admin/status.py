"""The command that shows how a running installation is, and where programs beside it find Kafka."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.text import Text

from api.cli.commands import command, json_option
from api.cli.common import DATA, load_settings
from api.cli.exit_codes import FAILED
from api.cli.output import Column, out, print_fields, print_json, print_table
from api.cli.shapes import DependencyStatus, InstallationStatus

if TYPE_CHECKING:
    from infrastructure.configuration.settings import Settings

UNAVAILABLE = "unavailable"


@command(example="bioscope status")
@DATA
@json_option(InstallationStatus)
def status(data: Path | None, *, as_json: bool) -> None:
    """Show the addresses of the running system, and the state of each part.

    A program that classifies images for the system finds Kafka at the address that is printed: see docs/models/external.md. The embedded
    broker has another address after each start, unless BIOSCOPE_KAFKA_PORT gives it a fixed port.

    The exit code is 1 if a part does not work.
    """
    from infrastructure.embedded.supervisor import running_settings

    configured = load_settings(data=data)
    running = running_settings(configured)
    answer = _readiness(running.base_url)
    shown = InstallationStatus(
        url=running.base_url,
        data=str(running.data),
        kafka=_kafka(running, is_embedded=not configured.kafka_url),
        job_topic=running.classification_job_topic,
        result_topic=running.classification_result_topic,
        status=answer["status"],
        dependencies=msgspec.convert(answer["dependencies"], tuple[DependencyStatus, ...]),
    )
    print_json(shown) if as_json else _print(shown)
    sys.exit(0 if shown.status == "ok" else FAILED)


def _readiness(url: str) -> dict[str, Any]:
    """What the API says of itself and of the other parts."""
    import httpx

    from api.cli.client.http_connection import open_http

    try:
        with open_http(url) as client:
            answer: dict[str, Any] = client.get("/health/ready").json()
    except (httpx.HTTPError, ValueError) as error:
        detail = f"{url} does not answer ({type(error).__name__})"
        return {"status": UNAVAILABLE, "dependencies": [{"name": "api", "ok": False, "detail": detail}]}
    return answer


def _kafka(running: "Settings", *, is_embedded: bool) -> str:
    """The address for programs beside the system."""
    from infrastructure.embedded.port_forwarding import HOST

    return f"{HOST}:{running.kafka_port}" if is_embedded and running.kafka_port else running.kafka_url


def _print(shown: InstallationStatus) -> None:
    print_fields(
        [
            ("API", shown.url),
            ("data folder", shown.data),
            ("Kafka", shown.kafka),
            ("topics of external classifiers", f"{shown.job_topic}, {shown.result_topic}"),
            ("status", shown.status),
        ]
    )
    out.print()
    print_table(
        [Column("part"), Column("state"), Column("detail", wraps=True)],
        [(one.name, Text("ok", "green") if one.ok else Text("wrong", "red"), _detail(one)) for one in shown.dependencies],
    )


def _detail(one: DependencyStatus) -> str:
    return f"{one.detail} ({', '.join(one.silent_models)})" if one.silent_models else one.detail
