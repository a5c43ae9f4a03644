"""The composition root: every port opens, answers and closes, and the process stays small."""

import asyncio
import subprocess
import sys

import msgspec
import pytest

from application import datasets
from domain.errors import Unavailable
from infrastructure import container
from infrastructure.container import services
from tests.given import actor, command

FOREIGN = {"numpy", "PIL", "faust", "mode", "aiokafka", "s3fs", "botocore", "onnxruntime", "tifffile", "confluent_kafka"}


@pytest.mark.anyio
async def test_everything_opens_answers_and_closes(settings):
    given = services(settings)
    async with given.lifespan():
        assert given.log.head() == 0
        assert await given.read_position.wait(0, 2)
        assert {one.name for one in await given.health.examine()} >= {"postgres", "kafka", "redis", "blobs"}
        async with asyncio.timeout(10):
            while b"bioscope_log_events" not in given.metrics():  # a background task asks for it
                await asyncio.sleep(0.01)
        assert not {*given.request_digests(b"a")} & {*given.request_digests(b"b")}
        given.upload_validator().feed(b"\xff\xd8\xff")
    with pytest.raises(Unavailable):
        given.log.head()


@pytest.mark.anyio
async def test_it_opens_while_every_dependency_is_away_and_reports_them(settings, tmp_path):
    away = msgspec.structs.replace(
        settings, postgres_url="postgresql://127.0.0.1:1/none", redis_url=f"unix://{tmp_path}/none", kafka_url="127.0.0.1:1"
    )
    given = services(away)
    async with given.lifespan():
        found = {one.name: one.ok for one in await given.health.examine()}
        assert found.pop("blobs")
        assert not any(found.values())
        with pytest.raises(Unavailable):
            given.refresh_tokens.rotate("x", at=None)
        given.sign_in_limits.registration("counted in the process")


def test_a_log_is_verified_with_its_own_keys(settings):
    given = services(settings)
    datasets.create(name="cells", description=None, command=command(actor()), log=given.log)
    found = container.verify_log(settings, given.log)
    assert (found.events, found.finding) == (1, None)
    given.log.close()
    given.refresh_tokens.close()


@pytest.mark.parametrize("module", ["infrastructure.container", "api.app, infrastructure.container"])
def test_the_api_carries_no_driver_of_other_processes(module):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert container.__name__ in loaded
    assert not FOREIGN & loaded
