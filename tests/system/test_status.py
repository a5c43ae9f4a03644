"""`bioscope status`: the addresses of a running system for programs beside it, and the state of each part."""

import asyncio
import json

import msgspec
import pytest
from click.testing import CliRunner

from api.cli import main
from api.cli.stack import prepare
from infrastructure.embedded.supervisor import SupervisedStack
from infrastructure.kafka.topics import all_topics, create_topics
from scripts.commands import shapes
from tests.api.test_commands import assert_shape
from tests.rigs.waiting import wait_until
from tests.system.conftest import stack_settings


def status(settings, *options, **variables):
    given = {"BIOSCOPE_DATA": str(settings.data)} | {f"BIOSCOPE_{name.upper()}": value for name, value in variables.items()}
    return CliRunner().invoke(main, ["status", *options], env=given)


def test_the_addresses_and_the_state_of_each_part_are_shown(stack):
    done = wait_until(lambda: (one := status(stack, "--json")).exit_code == 0 and one, within=20)
    assert_shape(shapes()["bioscope status"], done.stdout)
    shown = json.loads(done.stdout)
    assert (shown["url"], shown["kafka"], shown["status"]) == (stack.base_url, stack.kafka_url, "ok")
    assert {"postgres", "inference-bridge"} <= {one["name"] for one in shown["dependencies"]}
    assert f"Kafka                           {stack.kafka_url}" in status(stack).stdout


def test_models_whose_classifier_is_silent_are_named(stack, monkeypatch):
    bridge = {"name": "inference-bridge", "ok": False, "detail": "no answer", "silent_models": ["vesicles", "bones"]}
    monkeypatch.setattr("api.cli.admin.status._readiness", lambda _: {"status": "degraded", "dependencies": [bridge]})
    done = status(stack)
    assert done.exit_code == 1
    assert "no answer (vesicles, bones)" in " ".join(done.stdout.split())
    assert json.loads(status(stack, "--json").stdout)["dependencies"] == [bridge]


def test_where_nothing_runs_it_says_how_to_start(tmp_path):
    done = status(stack_settings(tmp_path))
    assert done.exit_code == 5
    assert "start it with `bioscope up`" in done.stderr


@pytest.mark.long
def test_a_fixed_port_of_kafka_is_shown_and_leads_to_the_broker(tmp_path, free_tcp_port):
    settings = msgspec.structs.replace(stack_settings(tmp_path / "data"), kafka_port=free_tcp_port)
    with SupervisedStack(settings, prepare=prepare) as running:
        shown = json.loads(status(running, "--json").stdout)
        assert shown["kafka"] == f"127.0.0.1:{free_tcp_port}" != running.kafka_url
        cluster = asyncio.run(create_topics(shown["kafka"], all_topics(settings)))
        assert cluster == asyncio.run(create_topics(running.kafka_url, all_topics(settings)))
