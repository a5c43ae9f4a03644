"""The processes of an installation, each of them one command."""

import os
from typing import Any, Final

import click

from api.cli.commands import Choice, argument, command, json_option
from api.cli.common import load_settings, require_settings
from api.cli.errors import friendly_errors
from api.cli.exit_codes import WRONG_USE
from api.cli.output import fail, print_json, print_message
from api.cli.shapes import ProcessHealth
from infrastructure.configuration.settings import Settings

PROCESSES: Final = ("api", "relay", "projector", "inference", "inference-bridge")
DATABASE_WAIT_SECONDS: Final = 30.0  # for a database that is still starting


@command(example="bioscope api")
def api() -> None:
    """Serve the HTTP API.

    In production, start it as a process of its own, as often as you like behind a proxy. `bioscope up` starts one. The address is
    BIOSCOPE_HOST and BIOSCOPE_PORT. Until there is an administrator, it prints the address at which the
    first one creates an account.
    """
    settings = _process("api", "postgres_url", "redis_url")

    from api.cli.setup_address import print_setup_address
    from infrastructure.embedded.supervisor import with_free_port
    from infrastructure.http.server import serve
    from infrastructure.security.process_keys import process_keys

    settings = with_free_port(settings)
    print_setup_address(settings, process_keys(settings, "api"))
    serve("api.cli.processes:asgi", settings)


def asgi() -> Any:
    """The application, for the HTTP server."""
    from api.app import create_app
    from api.cli.web_options import web_options
    from infrastructure.container import services
    from infrastructure.observability.log_setup import configure_logging

    with friendly_errors():
        settings = load_settings()
        configure_logging(settings, "api")
        _serve_metrics(settings, "api")
        return create_app(services(settings), web_options(settings))


@command(example="bioscope relay")
def relay() -> None:
    """Publish the log to Kafka in order, and sign its head.

    In production, start it as a process of its own. One relay leads; others wait to replace it.
    """
    settings = _process("relay", "postgres_url", "kafka_url")
    _serve_metrics(settings, "relay")

    from infrastructure.relay.process import run_relay

    run_relay(settings)


@command(example="bioscope projector")
def projector() -> None:
    """Apply events to the read models, and schedule jobs.

    In production, start it as a process of its own. A second projector is a hot standby.
    """
    settings = _process("projector", "postgres_url", "kafka_url")
    _serve_metrics(settings, "projector")

    from projections.process.main import run_projector

    run_projector(settings)


@command(example="bioscope inference")
def inference() -> None:
    """Decode images and run models.

    In production, start it as a process of its own, as often as you like.
    """
    from infrastructure.child_environment import ONE_THREAD

    os.environ.update(ONE_THREAD)
    settings = _process("inference", "postgres_url", "kafka_url")

    from infrastructure.inference.confinement import confine_inference

    confine_inference(settings)  # before the first thread
    _serve_metrics(settings, "inference")

    from infrastructure.inference.process import run_inference

    run_inference(settings)


@command("inference-bridge", example="bioscope inference-bridge")
def inference_bridge() -> None:
    """Send images to external classifiers, and record their answers.

    In production, start it as a process of its own, as often as you like. Without external classifiers it is not needed.
    """
    settings = _process("inference-bridge", "postgres_url", "kafka_url")
    _serve_metrics(settings, "inference-bridge")

    from infrastructure.bridge.process import run_inference_bridge

    run_inference_bridge(settings)


def _process(name: str, *needed: str) -> Settings:
    """The settings of one of our processes, which logs from now on. In production it refuses weak settings.

    Raises WrongRootKey, and for a database that does not answer or does not fit what `check_when_reachable` raises.
    """
    from infrastructure.observability.log_setup import configure_logging
    from infrastructure.postgres.schema import check_when_reachable
    from infrastructure.security.process_keys import process_keys

    settings = load_settings()
    require_settings(settings, *needed)
    _require_metrics_token(settings)
    if settings.environment == "production":
        _refuse_weak_settings(settings)
    configure_logging(settings, name)
    process_keys(settings, name)
    check_when_reachable(settings.postgres_url, seconds=DATABASE_WAIT_SECONDS)
    return settings


def _refuse_weak_settings(settings: Settings) -> None:
    from infrastructure.operations.doctor import refusals

    findings = refusals(settings)
    for finding in findings:
        print_message(finding.message, prefix=f"{finding.subject}: ", style="red")
    if findings:
        fail("weak settings are refused in production; see `bioscope doctor`", WRONG_USE)


@command(example="bioscope health api")
@argument("process", metavar="PROCESS", type=Choice(list(PROCESSES)), help="Process to check.")
@json_option(ProcessHealth)
def health(process: str, *, as_json: bool) -> None:
    """Check whether a process works.

    This is the health check of its container. The API is asked on BIOSCOPE_HOST and BIOSCOPE_PORT, the other processes on
    BIOSCOPE_METRICS_HOST and BIOSCOPE_METRICS_PORT. While `bioscope up` runs on the data folder, each process is asked on its own port
    there. A process is healthy while its event loop runs. Unreachable servers do not count, since a restart would not help.

    The exit code is 1 if the process is not healthy.
    """
    from infrastructure.embedded.installation import running_metrics_ports
    from infrastructure.observability.metrics_server import ask_health

    settings = load_settings()
    if process == "api":
        host, port, path = settings.host, settings.port, "/health/live"
    else:
        host, port, path = settings.metrics_host, running_metrics_ports(settings.data).get(process, settings.metrics_port), "/health"
        if not port:
            require_settings(settings, "metrics_port")
    answer = ask_health(host, port, path)
    is_other = process not in ("api", answer.process) and bool(answer.process or answer.healthy)
    healthy = answer.healthy and not is_other
    if as_json:
        print_json(ProcessHealth(process=process, healthy=healthy))
    if is_other:
        fail(_other_process(process, port, answer.process))
    if not healthy:
        fail(f"the process {process} does not answer on {host}:{port}{path}, or is not healthy")
    if not as_json:
        click.echo(f"the process {process} is healthy")


def _other_process(process: str, port: int, other: str) -> str:
    owner = f"port {port} is that of the {other}, not of the {process}" if other else f"port {port} is not that of the {process}"
    return f"{owner}: set BIOSCOPE_METRICS_PORT to the port of the {process}"


def _require_metrics_token(settings: Settings) -> None:
    from infrastructure.configuration.settings import WrongSetting
    from infrastructure.observability.metrics_server import metrics_token

    try:
        metrics_token(settings)
    except WrongSetting as error:
        fail(str(error), WRONG_USE)


def _serve_metrics(settings: Settings, process: str) -> None:
    from infrastructure.observability.metrics_server import serve_metrics

    serve_metrics(settings, process)
