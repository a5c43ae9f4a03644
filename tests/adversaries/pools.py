"""Pools of real children for hostile calls."""

from contextlib import asynccontextmanager

from infrastructure.inference.children.process_pool import ForkServer, ProcessPool

MEMORY_BYTES = 512 * 1024**2


@asynccontextmanager
async def a_pool(*modules, size=1, hang_seconds=20.0, memory_bytes=MEMORY_BYTES):
    fork_server = ForkServer(*modules, "tests.infrastructure.inference.pool_calls")
    pool = ProcessPool(fork_server, size=size, nice=0, memory_bytes=memory_bytes, hang_seconds=hang_seconds)
    try:
        yield pool
    finally:
        pool.close()
        fork_server.close()


async def still_works(pool):
    return await pool.run("tests.infrastructure.inference.pool_calls:add", 1, 1, into=int) == 2


async def child_of(pool):
    return await pool.run("tests.infrastructure.inference.pool_calls:pid", into=int)
