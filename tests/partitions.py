"""A log with small partitions."""

import psycopg

PARTITIONS = (
    """select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'es.events'::regclass order by 1"""
)


def made_small(owner: psycopg.Connection, size: int) -> None:
    """`owner` is of a database whose log is empty."""
    owner.execute(f"create or replace function es.partition_size() returns bigint language sql immutable parallel safe return {size}")
    owner.execute("alter table es.events detach partition es.events_0000")
    owner.execute(f"alter table es.events attach partition es.events_0000 for values from (minvalue) to ({size})")


def partitions(owner: psycopg.Connection) -> list[str]:
    return [name for (name,) in owner.execute(PARTITIONS)]
