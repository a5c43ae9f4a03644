"""Routes of API keys: personal access tokens, and the keys of service accounts. No key may be used for them."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta

from api.clock import utc_now
from api.query_parameters import MIN_POSITION, only_known_parameters
from api.request import PageSize, RequestContext
from application import api_keys
from application.commands import CommandResult
from application.key_text import KeySecret
from application.ports import KeyUse
from domain.access import Scope
from domain.api_key import DEFAULT_LIFETIME, DEFAULT_OVERLAP, MAX_DATASETS, MAX_LIFETIME, MAX_OVERLAP, ApiKey, OwnerKind
from domain.values import MAX_NAME
from projections import api_keys as read_model

Days = Annotated[int, Meta(ge=1, le=MAX_LIFETIME.days)]
OverlapHours = Annotated[int, Meta(ge=0, le=MAX_OVERLAP.days * 24)]


class KeyStatus(StrEnum):
    """Whether a key works. That of a deleted owner counts as revoked."""

    WORKING = "working"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key, without its secret."""

    id: UUID
    name: str
    owner_id: UUID
    owner_kind: OwnerKind
    scopes: list[Scope]
    dataset_ids: list[UUID] | None
    status: KeyStatus
    issued_by: UUID
    issued_at: datetime
    expires_at: datetime
    previous_until: datetime | None
    last_used_at: datetime | None
    last_used_from: str | None


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key or secret. `key` is shown this once, and null in the answer to a repeated request."""

    id: UUID
    key: str | None
    expires_at: datetime


class IssueKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new key."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=len(Scope))]
    dataset_ids: Annotated[list[UUID], Meta(min_length=1, max_length=MAX_DATASETS)] | None = None
    days: Days = DEFAULT_LIFETIME.days


class RotateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the new secret works, and for how long the present one works beside it.

    Without `days`, the new one works for as many days as the present one did when it was new.
    """

    days: Days | None = None
    overlap_hours: OverlapHours = DEFAULT_OVERLAP.days * 24


def view(key: ApiKey, *, use: KeyUse | None, now: datetime) -> Key:
    overlaps = key.previous_until is not None and now < key.previous_until and not key.revoked
    return Key(
        id=key.id,
        name=key.name,
        owner_id=key.owner_id,
        owner_kind=key.owner_kind,
        scopes=sorted(Scope(scope) for scope in key.scopes),
        dataset_ids=None if key.dataset_ids is None else sorted(key.dataset_ids),
        status=KeyStatus.REVOKED if key.revoked else KeyStatus.EXPIRED if now >= key.expires_at else KeyStatus.WORKING,
        issued_by=key.issued_by,
        issued_at=key.issued_at,
        expires_at=key.expires_at,
        previous_until=key.previous_until if overlaps else None,
        last_used_at=use.last_at if use else None,
        last_used_from=use.network if use else None,
    )


async def listed(context: RequestContext, **query: Any) -> Response[list[Key]]:
    """A page of keys, with what the log and the uses say of them."""
    page = await context.read(read_model.listed, **query)
    ids = [row.id for row in page.items]
    states: Mapping[UUID, ApiKey] = await context.read_log(api_keys.states_of, ids)
    uses = await asyncio.to_thread(context.services.key_uses.of, ids)
    now = utc_now()
    shown = msgspec.structs.replace(page, items=[row for row in page.items if row.id in states])
    return context.page(shown, lambda row: view(states[row.id], use=uses.get(row.id), now=now))


async def issue(context: RequestContext, data: IssueKey, use_case: Any, *arguments: object, owner: UUID) -> Response[IssuedKey]:
    """Run a use case that issues a key. Raises what it raises, and Conflict if the owner has too many keys."""
    await context.read(read_model.require_room, owner=owner, now=utc_now())
    secret = KeySecret()
    result = await context.execute(
        use_case,
        *arguments,
        name=data.name,
        scopes=data.scopes,
        datasets=data.dataset_ids,
        lifetime=timedelta(days=data.days),
        secret_hash=secret.hash,
    )
    return await _issued(context, result, secret)


async def _issued(context: RequestContext, result: CommandResult, secret: KeySecret) -> Response[IssuedKey]:
    key: ApiKey = await context.read_log(api_keys.load_key, key_id=result.id, actor=context.actor)
    text = None if result.replayed else secret.text(result.id)
    return context.created(IssuedKey(id=result.id, key=text, expires_at=key.expires_at), result)


class Keys(Controller):
    path = "/api/keys"
    tags: Sequence[str] = ("keys",)

    @get("/", guards=[only_known_parameters(MIN_POSITION)], operation_id="keysListed", summary="List keys")
    async def list_keys(
        self,
        context: NamedDependency[RequestContext],
        owner_id: FromQuery[UUID | None] = None,
        everyone: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Key]]:
        """Your personal access tokens, the newest first, also those that no longer work.

        Administrators may list the keys of another owner or of `everyone`.
        """
        return await listed(context, owner=owner_id, everyone=everyone, cursor=cursor, size=page_size)

    @post("/", operation_id="keysIssue", summary="Issue a personal access token")
    async def issue_own(self, context: NamedDependency[RequestContext], data: JSONBody[IssueKey]) -> Response[IssuedKey]:
        """A key with which a program acts as you, within `scopes` and, if you name any, within datasets.

        It is shown in this answer only. It ends when it expires or is revoked, and does not work while your account is suspended.
        """
        return await issue(context, data, api_keys.issue_own, owner=context.actor.id)

    @post("/{key_id:uuid}/rotate", operation_id="keysRotate", summary="Rotate a key")
    async def rotate(
        self, context: NamedDependency[RequestContext], key_id: FromPath[UUID], data: JSONBody[RotateKey]
    ) -> Response[IssuedKey]:
        """Give a key another secret, which is shown in this answer only. The present one works for `overlap_hours` longer.

        For your own keys; administrators may rotate those of service accounts.
        """
        secret = KeySecret()
        result = await context.execute(
            api_keys.rotate,
            key_id,
            lifetime=None if data.days is None else timedelta(days=data.days),
            overlap=timedelta(hours=data.overlap_hours),
            expected=context.expected_version,
            secret_hash=secret.hash,
        )
        context.identities.keys.forget(key_id)
        return await _issued(context, result, secret)

    @delete("/{key_id:uuid}", operation_id="keysRevoke", status_code=204, summary="Revoke a key")
    async def revoke(self, context: NamedDependency[RequestContext], key_id: FromPath[UUID]) -> Response[None]:
        """End a key within ten seconds. For your own keys; administrators may revoke every key."""
        result = await context.execute(api_keys.revoke, key_id, expected=context.expected_version)
        context.identities.keys.forget(key_id)
        return context.no_content(result)
