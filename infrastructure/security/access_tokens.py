"""Access tokens: JWTs (RFC 9068) signed with Ed25519, accepted only in the exact form in which they are issued."""

import re
from datetime import UTC, datetime
from threading import Lock
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias
from uuid import UUID, uuid4

import msgspec
from cachetools import LRUCache
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt import PyJWS
from jwt.exceptions import PyJWTError
from jwt.utils import base64url_encode
from msgspec import Meta

from application.services import Claims
from domain.access import Role
from domain.errors import NotAuthenticated
from domain.values import invalid, system_actor
from infrastructure.security.key_ring import Purpose, public_key_id
from infrastructure.security.keys import Keys

ALGORITHM: Final = "EdDSA"
MAX_TOKEN_CHARACTERS: Final = 4096
CLOCK_LEEWAY_SECONDS: Final = 30  # seconds by which clocks may differ
MAX_CACHED_TOKENS: Final = 2048  # verified tokens
NAME: Final = "[A-Za-z0-9._-]{1,100}"

Timestamp: TypeAlias = Annotated[int, Meta(ge=0, le=253_402_300_799)]  # seconds since 1970, up to the year 9999
ServiceName: TypeAlias = Annotated[str, Meta(pattern=f"^{NAME}$")]


class _TokenFields(msgspec.Struct, frozen=True, kw_only=True, tag_field="aud"):
    iss: Literal["bioscope"] = "bioscope"
    iat: Timestamp
    nbf: Timestamp
    exp: Timestamp
    jti: UUID


class _User(_TokenFields, frozen=True, kw_only=True, tag="bioscope"):
    sub: UUID
    sid: UUID
    role: Role
    roles: Role  # a single role, for clients of the earlier system

    def claims(self) -> Claims:
        return Claims(
            subject=self.sub,
            session_id=self.sid,
            role=self.role,
            scopes=frozenset(),
            issued_at=_datetime(self.iat),
            expires_at=_datetime(self.exp),
        )


class _Service(_TokenFields, frozen=True, kw_only=True, tag="bioscope-services"):
    sub: ServiceName
    scope: str  # separated by spaces

    def claims(self) -> Claims:
        return Claims(
            subject=service_id(self.sub),
            session_id=None,
            role=None,
            scopes=frozenset(self.scope.split()),
            issued_at=_datetime(self.iat),
            expires_at=_datetime(self.exp),
            token_id=self.jti,
            name=self.sub,
        )


_SUBJECT: Final = msgspec.json.Decoder(_User | _Service)


class _VerifiedToken(NamedTuple):
    fields: _User | _Service
    claims: Claims


def service_id(name: str) -> UUID:
    """The actor id of the service `name`."""
    return system_actor(f"service {name}")


class SignedAccessTokens:
    """Implements `AccessTokens`. Thread-safe.

    Only this system issues tokens. A token in another form (header, order, spaces, unknown or repeated members) is refused, whatever its
    signature.
    """

    def __init__(self, keys: Keys, *, ttl: int) -> None:
        self._private = keys.signing(Purpose.ACCESS_TOKENS)
        self._jws = PyJWS(algorithms=[ALGORITHM])
        self._header = _header(self._private.public_key())
        self._public_keys = {_start(public): public for public in keys.public(Purpose.ACCESS_TOKENS)}
        self._ttl = ttl
        self._verified: LRUCache[str, _VerifiedToken] = LRUCache(MAX_CACHED_TOKENS)
        self._lock = Lock()

    def issue(self, *, user: UUID, session: UUID, role: Role, at: datetime) -> str:
        now = int(at.timestamp())
        fields = _User(sub=user, sid=session, role=role, roles=role, iat=now, nbf=now, exp=now + self._ttl, jti=uuid4())
        return self._signed(msgspec.json.encode(fields))

    def issue_service(self, *, name: str, scopes: frozenset[str], seconds: int, at: datetime) -> str:
        """Raises Invalid for an invalid name."""
        if not re.fullmatch(NAME, name):
            raise invalid("name", "must have 1 to 100 letters, digits, dots, underscores or hyphens")
        now = int(at.timestamp())
        fields = _Service(sub=name, scope=" ".join(sorted(scopes)), iat=now, nbf=now, exp=now + seconds, jti=uuid4())
        return self._signed(msgspec.json.encode(fields))

    def verify(self, token: str, *, at: datetime) -> Claims:
        now = at.timestamp()
        fields, claims = self._cached(token) or self._verify_form(token)
        if not (fields.nbf - CLOCK_LEEWAY_SECONDS <= now and fields.iat - CLOCK_LEEWAY_SECONDS <= now < fields.exp + CLOCK_LEEWAY_SECONDS):
            self._forget(token)
            raise _invalid_token()
        return claims

    def _signed(self, payload: bytes) -> str:
        return self._jws.encode(payload, self._private, algorithm=ALGORITHM, headers=self._header)

    def _verify_form(self, token: str) -> _VerifiedToken:
        """Verify the signature and the exact form. Raises NotAuthenticated."""
        start = token.partition(".")[0] + "."
        if len(token) > MAX_TOKEN_CHARACTERS or start not in self._public_keys:
            raise _invalid_token()
        try:
            payload = self._jws.decode(token, self._public_keys[start], algorithms=[ALGORITHM])
            fields = _SUBJECT.decode(payload)
        except (PyJWTError, msgspec.MsgspecError, ValueError):
            raise _invalid_token() from None
        written = base64url_encode(msgspec.json.encode(fields)).decode()
        signature = token.rpartition(".")[2]
        if token != f"{start}{written}.{signature}" or not _canonical(signature):
            raise _invalid_token()
        verified = _VerifiedToken(fields, fields.claims())
        self._cache(token, verified)
        return verified

    def _cached(self, token: str) -> _VerifiedToken | None:
        with self._lock:
            return self._verified.get(token)

    def _cache(self, token: str, verified: _VerifiedToken) -> None:
        with self._lock:
            self._verified[token] = verified

    def _forget(self, token: str) -> None:
        with self._lock:
            self._verified.pop(token, None)


def _header(public: Ed25519PublicKey) -> dict[str, str]:
    return {"alg": ALGORITHM, "kid": public_key_id(public), "typ": "at+jwt"}


def _start(public: Ed25519PublicKey) -> str:
    """The encoded header, with which every token signed with this key starts."""
    return base64url_encode(msgspec.json.encode(_header(public))).decode() + "."


def _canonical(signature: str) -> bool:
    """Base64 of 64 bytes has four unused bits. They must be zero, or one token would have 16 spellings."""
    return signature[-1:] in {"A", "Q", "g", "w"}


def _datetime(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _invalid_token() -> NotAuthenticated:
    return NotAuthenticated("Invalid token")
