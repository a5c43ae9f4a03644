"""Routes of open sessions: the own ones, and those of any account for administrators."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from api.clock import utc_now
from api.query_parameters import only_known_parameters
from api.request import RequestContext, from_row
from application import open_sessions
from application.open_sessions import ListedSession


class OpenSession(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that has not ended or expired."""

    id: UUID
    device: str
    address: str
    started_at: datetime
    last_used_at: datetime
    is_current: bool


class OpenSessions(Controller):
    path = "/api/sessions"
    tags = ("sessions",)

    @get(guards=[only_known_parameters()], summary="List your sessions")
    async def listed(self, context: NamedDependency[RequestContext]) -> list[OpenSession]:
        """Your open sessions, the last used one first: at most the 200 that were used last."""
        return await sessions_of(context, context.actor.id)

    @delete(status_code=204, summary="End your other sessions")
    async def end_others(self, context: NamedDependency[RequestContext]) -> Response[None]:
        """Sign out on all other devices. The session of this request stays open.

        Access tokens of the ended sessions stop working within 10 seconds.
        """
        await end_all(context, context.actor.id, but=context.identity.session_id)
        return Response(None, status_code=204)

    @delete("/{session_id:uuid}", status_code=204, summary="End one of your sessions")
    async def end(self, context: NamedDependency[RequestContext], session_id: FromPath[UUID]) -> Response[None]:
        """Sign out on one device. A session that has already ended is not an error."""
        return await end_one(context, context.actor.id, session_id)


class SessionsOfUsers(Controller):
    path = "/api/users/users/{user_id:uuid}/sessions"
    tags = ("sessions",)

    @get(guards=[only_known_parameters()], summary="List the sessions of an account")
    async def of_user(self, context: NamedDependency[RequestContext], user_id: FromPath[UUID]) -> list[OpenSession]:
        """The open sessions of an account, the last used one first: at most the 200 that were used last. For administrators."""
        return await sessions_of(context, user_id)

    @delete(status_code=204, summary="End all sessions of an account")
    async def end_all_of_user(self, context: NamedDependency[RequestContext], user_id: FromPath[UUID]) -> Response[None]:
        """Sign an account out on all devices. For administrators. The account can sign in again."""
        await end_all(context, user_id)
        return Response(None, status_code=204)

    @delete("/{session_id:uuid}", status_code=204, summary="End a session of an account")
    async def end_of_user(
        self, context: NamedDependency[RequestContext], user_id: FromPath[UUID], session_id: FromPath[UUID]
    ) -> Response[None]:
        """Sign an account out on one device. For administrators. A session that has already ended is not an error."""
        return await end_one(context, user_id, session_id)


async def sessions_of(context: RequestContext, user_id: UUID) -> list[OpenSession]:
    found = await context.read_log(open_sessions.listed, user_id, actor=context.actor, at=utc_now(), tokens=context.services.refresh_tokens)
    return [_view(each, current=context.identity.session_id) for each in found]


async def end_one(context: RequestContext, user_id: UUID, session_id: UUID) -> Response[None]:
    tokens = context.services.refresh_tokens
    await context.execute(open_sessions.end, session_id, user_id=user_id, tokens=tokens)
    context.identities.forget(user_id)
    return Response(None, status_code=204)


async def end_all(context: RequestContext, user_id: UUID, *, but: UUID | None = None) -> None:
    await context.execute(open_sessions.end_all, user_id, but=but, tokens=context.services.refresh_tokens)
    context.identities.forget(user_id)


def _view(found: ListedSession, *, current: UUID | None) -> OpenSession:
    return from_row(found, OpenSession, is_current=found.id == current)
