"""Refresh tokens in Postgres. Only digests are stored. The successor of a token is derived from it, so it can be returned twice.

Each row has a MAC, so write access to the database is not enough to create a token for a session.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import structlog

from application.ports import OpenSession, RefreshResult
from domain.errors import NotAuthenticated, RefreshTokenReused
from infrastructure.postgres.statement_pool import StatementPool
from infrastructure.security.key_ring import Purpose
from infrastructure.security.keyed_digest import KeyedDigest
from infrastructure.security.keys import Keys

log = structlog.get_logger()

TOKEN_BYTES: Final = 32
MAX_TOKEN_CHARACTERS: Final = 128  # the first token of a session has 43, later ones have 48, which include a key id
REUSE_GRACE_PERIOD: Final = timedelta(seconds=10)  # two browser tabs that share a token get the same successor
MAX_CONNECTIONS: Final = 4

DELETE_EXPIRED: Final = "delete from es.refresh_tokens where user_id = %(user)s and absolute_at <= %(at)s"
ISSUE: Final = """insert into es.refresh_tokens (digest, session_id, user_id, issued_at, expires_at, absolute_at, mac)
  values (%(digest)s, %(session)s, %(user)s, %(at)s, least(%(at)s + %(idle)s, %(absolute_at)s), %(absolute_at)s, %(mac)s)"""
# One statement marks the parent as used and inserts its successor, or does neither.
ROTATE: Final = """with used as materialized (select es.use_refresh_token(%(parent)s, %(at)s) as won)
  insert into es.refresh_tokens (digest, session_id, user_id, issued_at, expires_at, absolute_at, mac)
  select %(child)s, %(session)s, %(user)s, %(at)s, least(%(at)s + %(idle)s, %(absolute_at)s), %(absolute_at)s, %(mac)s
  from used, es.refresh_tokens t where used.won and t.digest = %(parent)s
  returning session_id"""
FIND: Final = "select session_id, user_id, absolute_at, mac from es.refresh_tokens where digest = %(parent)s"
USED: Final = """select t.used_at, c.digest from es.refresh_tokens t left join es.refresh_tokens c on c.digest = any(%(children)s)
  where t.digest = %(parent)s"""
OPEN: Final = """select session_id, max(issued_at) from es.refresh_tokens where user_id = %(user)s
  group by session_id having bool_or(used_at is null and expires_at > %(at)s) order by 2 desc, 1"""
REVOKE: Final = "delete from es.refresh_tokens where session_id = %(session)s returning session_id"
REVOKE_USER: Final = """delete from es.refresh_tokens where user_id = %(user)s and session_id is distinct from %(but)s::uuid
  returning session_id"""


class PostgresRefreshTokens:
    """Implements `RefreshTokens`. Thread-safe. Calls block, and raise Unavailable."""

    def __init__(self, url: str, keys: Keys, *, idle_seconds: int, absolute_seconds: int) -> None:
        self._children = KeyedDigest(keys, Purpose.REFRESH_TOKENS)
        self._row_macs = KeyedDigest(keys, Purpose.REFRESH_TOKEN_ROWS)
        self._idle, self._absolute = timedelta(seconds=idle_seconds), timedelta(seconds=absolute_seconds)
        self._pool = StatementPool(url, max_size=MAX_CONNECTIONS)

    def close(self) -> None:
        self._pool.close()

    def issue(self, *, session: UUID, user: UUID, at: datetime) -> str:
        token = _text(secrets.token_bytes(TOKEN_BYTES))
        issued = Issued(session, user, at + self._absolute)
        self._pool.rows(DELETE_EXPIRED, {"user": user, "at": at})
        self._pool.rows(ISSUE, self._values(issued, _digest(token), at) | {"digest": _digest(token)})
        return token

    def rotate(self, token: str, *, at: datetime) -> RefreshResult:
        children = {_digest(child): child for child in map(_text, self._children.forms(_bytes(token)))}
        digest, child = next(iter(children.items()))
        parent = _digest(token)
        issued = self._issued(parent)
        parameters = {"parent": parent, "child": digest, "children": list(children)}
        for (session,) in self._pool.rows(ROTATE, parameters | self._values(issued, digest, at)):
            return RefreshResult(session_id=session, user_id=issued.user, token=child)
        for used_at, child_digest in self._pool.rows(USED, parameters):
            if used_at is None or issued.absolute_at <= at:
                break
            if abs(at - used_at) > REUSE_GRACE_PERIOD:  # in both directions, since the clocks of processes differ
                raise RefreshTokenReused(issued.session, issued.user)
            if child_digest is not None:
                return RefreshResult(session_id=issued.session, user_id=issued.user, token=children[child_digest])
        raise _invalid_token()

    def _issued(self, digest: bytes) -> "Issued":
        """The row of a token's digest. A row with a wrong MAC counts as missing. Raises NotAuthenticated."""
        for session, user, absolute_at, mac in self._pool.rows(FIND, {"parent": digest}):
            issued = Issued(session, user, absolute_at)
            if mac is not None and self._row_macs.matches(mac, issued.bytes_with(digest)):
                return issued
            log.error("a refresh token in the database was not issued by this installation", session_id=str(session))
        raise _invalid_token()

    def _values(self, issued: "Issued", digest: bytes, at: datetime) -> dict[str, object]:
        mac = self._row_macs.of(issued.bytes_with(digest))
        values = {"session": issued.session, "user": issued.user, "absolute_at": issued.absolute_at, "mac": mac}
        return values | {"at": at, "idle": self._idle}

    def session_of(self, token: str) -> UUID | None:
        """The session of a token, even of a used or expired one, since signing out with it must end the session."""
        rows = self._pool.rows("select session_id from es.refresh_tokens where digest = %(digest)s", {"digest": _digest(token)})
        return rows[0][0] if rows else None

    def open_sessions(self, user: UUID, *, at: datetime) -> list[OpenSession]:
        return [OpenSession(session, issued_at) for session, issued_at in self._pool.rows(OPEN, {"user": user, "at": at})]

    def revoke(self, session: UUID) -> None:
        self._delete_until_empty(REVOKE, {"session": session})

    def revoke_user(self, user: UUID, *, but: UUID | None = None) -> list[UUID]:
        return list(dict.fromkeys(self._delete_until_empty(REVOKE_USER, {"user": user, "but": but})))

    def _delete_until_empty(self, statement: str, parameters: Mapping[str, object]) -> list[UUID]:
        """Repeat a deletion until it finds no row, since a concurrent rotation may have inserted a successor that it did not see."""
        revoked: list[UUID] = []
        while rows := self._pool.rows(statement, parameters):
            revoked += [row[0] for row in rows]
        return revoked


class Issued(NamedTuple):
    """The fields of a refresh token that the MAC of its row covers: session, user, and the end of the session."""

    session: UUID
    user: UUID
    absolute_at: datetime

    def bytes_with(self, digest: bytes) -> bytes:
        return digest + self.session.bytes + self.user.bytes + self.absolute_at.astimezone(UTC).isoformat().encode()


def _invalid_token() -> NotAuthenticated:
    return NotAuthenticated("Invalid or expired refresh token")


def _text(token: bytes) -> str:
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def _bytes(token: str) -> bytes:
    return token[:MAX_TOKEN_CHARACTERS].encode(errors="surrogatepass")


def _digest(token: str) -> bytes:
    return hashlib.sha256(_bytes(token)).digest()
