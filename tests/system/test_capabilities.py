"""Each process of a running system declares its capabilities under its own role."""

import httpx
import psycopg

from tests.system.releases import until

DECLARED = "select kind, role::text, cardinality(types) > 30, paused from ops.capabilities where ops.is_live(seen_at) order by kind"


def declared(stack):
    with psycopg.connect(stack.postgres_owner_url) as connection:
        return connection.execute(DECLARED).fetchall()


def test_every_process_that_decodes_events_declares_what_it_understands(stack):
    kinds = ("api", "inference", "inference-bridge", "projector")
    assert until(lambda: declared(stack)) == [(kind, f"bioscope_{kind.removesuffix('-bridge')}", True, "") for kind in kinds]
    named = {one["name"] for one in httpx.get(f"{stack.base_url}/health/ready").json()["dependencies"]}
    assert "upgrade" not in named
