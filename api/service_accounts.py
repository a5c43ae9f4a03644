"""Routes of service accounts and of their keys, for administrators."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta

from api.api_keys import IssuedKey, IssueKey, Key, issue, listed
from api.query_parameters import MIN_POSITION, only_known_parameters
from api.request import NamedBody, PageSize, RequestContext
from application import api_keys, service_accounts
from domain.service_account import ServiceAccount as State
from domain.values import MAX_DESCRIPTION
from projections import service_accounts as read_model


class ServiceAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account of a program, such as a microscope or a script."""

    id: UUID
    name: str
    description: str
    created_at: datetime


class CreateServiceAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new service account. The name must not be that of a person, as events record it in clear."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION)] = ""


def view(service: State) -> ServiceAccount:
    return ServiceAccount(id=service.id, name=service.name, description=service.description, created_at=service.created_at)


class ServiceAccounts(Controller):
    path = "/api/service-accounts"
    tags = ("keys",)

    @get("/", guards=[only_known_parameters(MIN_POSITION)], operation_id="serviceAccountsListed", summary="List service accounts")
    async def list_service_accounts(
        self, context: NamedDependency[RequestContext], page_size: PageSize = 200, cursor: FromQuery[str | None] = None
    ) -> Response[list[ServiceAccount]]:
        """All service accounts, the oldest first. For administrators."""
        page = await context.read(read_model.listed, cursor=cursor, size=page_size)
        states = await context.read_log(service_accounts.states_of, [row.id for row in page.items])
        shown = msgspec.structs.replace(page, items=[row for row in page.items if row.id in states])
        return context.page(shown, lambda row: view(states[row.id]))

    @post("/", operation_id="serviceAccountsCreate", summary="Create a service account")
    async def create(self, context: NamedDependency[RequestContext], data: JSONBody[CreateServiceAccount]) -> Response[NamedBody]:
        """Create an account for a program. No two have the same name. For administrators."""
        result = await context.execute(service_accounts.create, name=data.name, description=data.description)
        return context.created(NamedBody(result.id, data.name), result)

    @get("/{service_id:uuid}", operation_id="serviceAccountsOne", summary="Read a service account")
    async def get_service_account(self, context: NamedDependency[RequestContext], service_id: FromPath[UUID]) -> Response[ServiceAccount]:
        """One service account. For administrators."""
        service_accounts.require_administrator(context.actor)
        found: State = await context.read_log(service_accounts.load_service, service_id=service_id)
        return context.versioned(view(found), version=found.version)

    @delete("/{service_id:uuid}", operation_id="serviceAccountsDelete", status_code=204, summary="Delete a service account")
    async def remove(self, context: NamedDependency[RequestContext], service_id: FromPath[UUID]) -> Response[None]:
        """Delete a service account. All of its keys stop working within ten seconds. For administrators."""
        result = await context.execute(service_accounts.delete, service_id, expected=context.expected_version)
        context.identities.keys.forget(service_id)
        return context.no_content(result)

    @get(
        "/{service_id:uuid}/keys",
        guards=[only_known_parameters(MIN_POSITION)],
        operation_id="serviceAccountsKeys",
        summary="List keys of a service account",
    )
    async def list_keys(
        self,
        context: NamedDependency[RequestContext],
        service_id: FromPath[UUID],
        page_size: PageSize = 200,
        cursor: FromQuery[str | None] = None,
    ) -> Response[list[Key]]:
        """The keys of a service account, the newest first, also those that no longer work. For administrators."""
        service_accounts.require_administrator(context.actor)
        await context.read_log(service_accounts.load_service, service_id=service_id)
        return await listed(context, owner=service_id, cursor=cursor, size=page_size)

    @post("/{service_id:uuid}/keys", operation_id="serviceAccountsIssueKey", summary="Issue a key of a service account")
    async def issue_key(
        self, context: NamedDependency[RequestContext], service_id: FromPath[UUID], data: JSONBody[IssueKey]
    ) -> Response[IssuedKey]:
        """A key with `scopes` and, if any are named, for datasets. It is shown in this answer only. For administrators."""
        return await issue(context, data, api_keys.issue_for_service, service_id, owner=service_id)
