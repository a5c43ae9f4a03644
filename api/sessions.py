"""Registering, signing in, staying signed in and signing out over HTTP.

A refresh token comes as a body field, as a Bearer header, or as the cookie. Only the cookie is sent by a browser on its own, so only
then it matters which page asked.
"""

import asyncio
from typing import Annotated
from uuid import UUID

import structlog
from litestar import Controller, Response, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import JSONBody, URLEncodedBody
from msgspec import Meta, Struct

from api.middleware.authentication import OPEN, bearer
from api.request import RequestContext, current_context
from application import accounts, sessions
from application.sessions import SignedIn
from domain.access import Actor
from domain.errors import Forbidden, NotAuthenticated
from domain.values import system_actor

log = structlog.get_logger()

ANONYMOUS = Actor(id=system_actor("anybody"), kind="anonymous")
COOKIE = "refresh_token"
COOKIE_PATH = "/api/auth"
MISSING = "Refresh token missing"

Address = Annotated[str, Meta(max_length=100)]
Password = Annotated[str, Meta(max_length=1024)]


class Registration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    email: str
    username: str
    first_name: str
    last_name: str
    password: str


class Registered(Struct, frozen=True):
    id: UUID
    email: str


class Login(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    email: Address
    password: Password


class LoginForm(Struct, frozen=True, kw_only=True):
    """As OAuth 2 names it (RFC 6749, 4.3.2): `username` is the e-mail address."""

    username: Address
    password: Password


class RefreshToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    refresh_token: str | None = None


class Tokens(Struct, frozen=True, kw_only=True):
    """`expires_in` seconds the access token is taken; the refresh token can be used once, for the next pair."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - a scheme, not a secret
    refresh_token: str
    expires_in: int


class Sessions(Controller):
    path = "/api/auth"
    tags = ("sessions",)
    opt = OPEN

    @post("/register")
    async def register(self, call: NamedDependency[RequestContext], data: JSONBody[Registration]) -> Response[Registered]:
        """A new account: a viewer, usable at once."""
        await asyncio.to_thread(call.services.attempts.registration, call.network)
        done = await call.carry_out(
            call.command(actor=ANONYMOUS, keyed=False),
            accounts.register,
            email=data.email,
            username=data.username,
            first_name=data.first_name,
            last_name=data.last_name,
            password=data.password,
            network=call.network,
            passwords=call.services.passwords,
        )
        account = await asyncio.to_thread(accounts.load_account, call.services.log, done.id)
        return call.created(Registered(account.id, account.email), done)

    @post("/login", status_code=200)
    async def login(self, call: NamedDependency[RequestContext], data: JSONBody[Login]) -> Response[Tokens]:
        return await signed_in(call, data.email, data.password)

    @post("/login-swagger", status_code=200, opt={"body": "form"})
    async def login_by_form(self, call: NamedDependency[RequestContext], data: URLEncodedBody[LoginForm]) -> Response[Tokens]:
        """The same, for the form of the API's documentation."""
        return await signed_in(call, data.username, data.password)

    @post("/refresh", status_code=200)
    async def refresh(self, call: NamedDependency[RequestContext], data: JSONBody[RefreshToken | None] = None) -> Response[Tokens]:
        """The next pair of tokens. The same token again within 10 s gets the same pair; later it ends the session."""
        token = refresh_token_of(call, data)
        if token is None:
            raise NotAuthenticated(MISSING)
        services = call.services
        try:
            found = await asyncio.to_thread(
                sessions.refresh,
                token=token,
                address=call.address,
                network=call.network,
                command=call.command(actor=ANONYMOUS, keyed=False),
                log=services.log,
                tokens=services.refresh_tokens,
                attempts=services.attempts,
            )
        except NotAuthenticated as refused:
            if (user_id := refused.user_id) is not None:
                call.identities.forget(user_id)
            raise
        return tokens_for(call, found)

    @post("/logout", status_code=204)
    async def logout(self, call: NamedDependency[RequestContext], data: JSONBody[RefreshToken | None] = None) -> Response[None]:
        """Ends the session that the access token or the refresh token belongs to; one that has ended is no error."""
        for session_id in await asyncio.to_thread(sessions_to_end, call, data):
            command = call.command(actor=ANONYMOUS, keyed=False)
            user_id = await asyncio.to_thread(
                sessions.sign_out, session_id, command=command, log=call.services.log, tokens=call.services.refresh_tokens
            )
            if user_id is not None:
                call.identities.forget(user_id)
        return Response(None, status_code=204, cookies=[cookie(call, "", seconds=0)])


async def signed_in(call: RequestContext, email: str, password: str) -> Response[Tokens]:
    services = call.services
    try:
        found = await asyncio.to_thread(
            sessions.sign_in,
            email=email,
            password=password,
            address=call.address,
            network=call.network,
            agent="".join(sign for sign in call.request.headers.get("user-agent", "") if sign.isprintable()),
            command=call.command(actor=ANONYMOUS, keyed=False),
            log=services.log,
            passwords=services.passwords,
            tokens=services.refresh_tokens,
            attempts=services.attempts,
        )
    except NotAuthenticated:
        log.warning("sign-in refused", address=call.address, request_id=call.request_id)
        raise
    return tokens_for(call, found)


def tokens_for(call: RequestContext, found: SignedIn) -> Response[Tokens]:
    options = call.services.options
    access = call.services.access_tokens.issue(user=found.user.id, session=found.session_id, role=found.user.role, at=current_context())
    body = Tokens(access_token=access, refresh_token=found.refresh_token, expires_in=options.access_ttl)
    return Response(body, cookies=[cookie(call, found.refresh_token, seconds=options.refresh_ttl)])


def cookie(call: RequestContext, value: str, *, seconds: int) -> Cookie:
    return Cookie(
        key=COOKIE,
        value=value,
        max_age=seconds,
        path=call.services.options.base_path + COOKIE_PATH,
        httponly=True,
        samesite="strict",
        secure=call.services.options.secure_cookies,
    )


def refresh_token_of(call: RequestContext, data: RefreshToken | None) -> str | None:
    """What was sent on purpose before what the browser sends. Raises Forbidden where another site's page may have asked."""
    if data is not None and data.refresh_token:
        return data.refresh_token
    token = bearer(call.request.headers.get("authorization"))
    if token is not None and not is_access_token(token):
        return token
    token = call.request.cookies.get(COOKIE)
    if token and not is_from_own_page(call):
        raise Forbidden("A refresh token in a cookie is taken only from pages of this site, or with the header X-Requested-With")
    return token or None


def is_access_token(token: str) -> bool:
    return token.count(".") == 2


def is_from_own_page(call: RequestContext) -> bool:
    """A page elsewhere cannot send our origin, nor a header that its browser would have to ask us for first."""
    headers = call.request.headers
    origin = headers.get("origin")
    if origin is None:
        return "x-requested-with" in headers or "authorization" in headers
    ours = {call.services.options.origin, *call.services.options.cors_origins}
    return origin in ours or origin.partition("://")[2] == headers.get("host")


def sessions_to_end(call: RequestContext, data: RefreshToken | None) -> set[UUID]:
    """Blocks. Raises NotAuthenticated when there is no token, or only an access token that we do not believe; Forbidden for a service."""
    access = bearer(call.request.headers.get("authorization"))
    refresh = refresh_token_of(call, data)
    by_refresh = call.services.refresh_tokens.session_of(refresh) if refresh else None
    meant = {by_refresh} - {None}
    if access is not None and is_access_token(access):
        meant |= _by_access(call, access, needed=refresh is None)
    elif refresh is None:
        raise NotAuthenticated(MISSING)
    return {session_id for session_id in meant if session_id is not None}


def _by_access(call: RequestContext, token: str, *, needed: bool) -> set[UUID]:
    try:
        claims = call.services.access_tokens.verify(token, at=current_context())
    except NotAuthenticated:
        if needed:
            raise
        return set()
    if claims.session_id is None:
        raise Forbidden("A service's token belongs to no session; it ends by itself")
    return {claims.session_id}
