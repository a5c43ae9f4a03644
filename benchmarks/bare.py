"""Bare handlers that do the same work and nothing else. They show the minimum cost of framework and server."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, get, post

from infrastructure.postgres.query_database import PostgresQueryDatabase
from projections.images import Image

CAPTURED = Path(os.environ.get("BIOSCOPE_BENCH_QUERY", "/dev/null")).read_bytes()


class CapturedQuery(msgspec.Struct, frozen=True):
    """The query of the measured page, its parameters, and the bytes of the response."""

    query: str
    parameters: dict[str, Any]
    answer: bytes


@get("/page")
async def page(request: Request[Any, Any, Any]) -> Response[bytes]:
    captured: CapturedQuery = request.app.state.captured
    await request.app.state.reads.rows(captured.query, captured.parameters, into=Image)
    return Response(captured.answer, media_type="application/json")


@post("/upload")
async def upload(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Hash the body and write it durably, while it arrives."""
    digest, folder = hashlib.sha256(), request.app.state.folder
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        async for piece in request.stream():
            digest.update(piece)
            await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(_synced, file)
    await asyncio.to_thread(os.replace, file.name, Path(folder) / digest.hexdigest())
    return {"sha256": digest.hexdigest()}


def _synced(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory(prefix="bioscope-bench-") as folder:
        app.state.folder = folder
        if CAPTURED:
            app.state.captured = msgspec.json.decode(CAPTURED, type=CapturedQuery)
            app.state.reads = PostgresQueryDatabase(os.environ["BIOSCOPE_BENCH_DATABASE"])
            await app.state.reads.open()
        yield
        if CAPTURED:
            await app.state.reads.close()


def create() -> Litestar:
    return Litestar([page, upload], lifespan=[lifespan], openapi_config=None, request_max_body_size=None, logging_config=None)
