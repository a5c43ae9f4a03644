"""Session routes: register, sign in, refresh tokens, sign out.

A refresh token comes in the body, as a bearer token, or in the cookie. Browsers send the cookie with every request, so only for the
cookie it matters which page sent the request.
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

from api.clock import utc_now
from api.mail_requests import count_mail_to_new_address, in_equal_time
from api.middleware.authentication import OPEN, bearer
from api.registration_modes import require_open_registration
from api.request import RequestContext
from application import accounts, registrations, sessions
from application.ports import Command
from application.sessions import SignedIn
from domain.access import Actor
from domain.errors import Forbidden, NotAuthenticated
from domain.values import email as email_address
from domain.values import system_actor

log = structlog.get_logger()

ANONYMOUS = Actor(id=system_actor("anybody"), kind="anonymous")
COOKIE = "refresh_token"
COOKIE_PATH = "/api/auth"
REFRESH_TOKEN_MISSING = "Refresh token missing"  # noqa: S105 - a message

EmailAddress = Annotated[str, Meta(max_length=100)]
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
    email: EmailAddress
    password: Password


class LoginForm(Struct, frozen=True, kw_only=True):
    """The password grant of OAuth 2 (RFC 6749, 4.3.2). Other fields of that grant, such as `grant_type`, are ignored."""

    username: EmailAddress
    password: Password


class RefreshToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    refresh_token: str | None = None


class Tokens(Struct, frozen=True, kw_only=True):
    """An access token for the next requests, and a refresh token for the next pair."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - a scheme, not a secret
    refresh_token: str
    expires_in: int


class Sessions(Controller):
    path = "/api/auth"
    tags = ("sessions",)
    opt = OPEN

    @post("/register", summary="Register an account")
    async def register(self, context: NamedDependency[RequestContext], data: JSONBody[Registration]) -> Response[Registered]:
        """Create an account with the role viewer. It can sign in at once.

        An administrator changes the role (`PATCH /api/users/users/{user_id}`). Where addresses are verified, a registration is created
        instead, and a mail with a link is sent; the answer is the same whether or not the address has an account. 403 if people do not
        register here themselves.
        """
        require_open_registration(context)
        if context.options.verifies_email:
            return await self._request_registration(context, data)
        await asyncio.to_thread(context.services.sign_in_limits.registration, context.network)
        result = await context.execute(
            accounts.register,
            email=data.email,
            username=data.username,
            first_name=data.first_name,
            last_name=data.last_name,
            password=data.password,
            network=context.network,
            passwords=context.services.passwords,
            command=anonymous_command(context),
        )
        account = await context.read_log(accounts.load_account, user_id=result.id)
        return context.created(Registered(account.id, account.email), result)

    async def _request_registration(self, context: RequestContext, data: Registration) -> Response[Registered]:
        await count_mail_to_new_address(context, data.email)
        work = context.execute(
            registrations.request,
            email=data.email,
            username=data.username,
            first_name=data.first_name,
            last_name=data.last_name,
            password=data.password,
            network=context.network,
            passwords=context.services.passwords,
            command=anonymous_command(context),
        )
        result = await in_equal_time(context, work)
        return context.created(Registered(result.id, email_address(data.email)), result)

    @post("/login", status_code=200, summary="Sign in")
    async def login(self, context: NamedDependency[RequestContext], data: JSONBody[Login]) -> Response[Tokens]:
        """Start a session with an e-mail address and a password.

        The answer holds both tokens, and sets the refresh token as a cookie. The reason of a refusal is always the same.
        """
        return await sign_in(context, data.email, data.password)

    @post("/login-swagger", status_code=200, opt={"body": "form"}, summary="Sign in with a form")
    async def login_by_form(self, context: NamedDependency[RequestContext], data: URLEncodedBody[LoginForm]) -> Response[Tokens]:
        """Sign in as OAuth 2 describes it (password grant): the same as `POST /api/auth/login`, with a form instead of JSON.

        "Authorize" in the documentation pages uses this operation.
        """
        return await sign_in(context, data.username, data.password)

    @post("/refresh", status_code=200, summary="Refresh the tokens")
    async def refresh(self, context: NamedDependency[RequestContext], data: JSONBody[RefreshToken | None] = None) -> Response[Tokens]:
        """Exchange a refresh token for a new pair of tokens.

        Send the refresh token in the body, as `Authorization: Bearer`, or as the cookie. Each one can be used once. The same token again
        within 10 seconds gets the same pair; later it ends the session.
        """
        token = refresh_token_of(context, data)
        if token is None:
            raise NotAuthenticated(REFRESH_TOKEN_MISSING)
        try:
            signed_in = await context.execute(
                sessions.refresh,
                token=token,
                address=context.address,
                network=context.network,
                tokens=context.services.refresh_tokens,
                sign_in_limits=context.services.sign_in_limits,
                command=anonymous_command(context),
            )
        except NotAuthenticated as error:
            if error.user_id is not None:
                context.identities.forget(error.user_id)
            raise
        return tokens_for(context, signed_in)

    @post("/logout", status_code=204, summary="Sign out")
    async def logout(self, context: NamedDependency[RequestContext], data: JSONBody[RefreshToken | None] = None) -> Response[None]:
        """End the session of the access token or refresh token that is sent. A session that has already ended is not an error."""
        for session_id in await asyncio.to_thread(sessions_to_end, context, data):
            command, tokens = anonymous_command(context), context.services.refresh_tokens
            user_id = await context.execute(sessions.sign_out, session_id, tokens=tokens, command=command)
            if user_id is not None:
                context.identities.forget(user_id)
        return Response(None, status_code=204, cookies=[cookie(context, "", seconds=0)])


def anonymous_command(context: RequestContext) -> Command:
    """A command without an authenticated actor. Idempotency-Key is ignored, because the result has tokens, which are not stored."""
    return context.command(actor=ANONYMOUS, keyed=False)


async def sign_in(context: RequestContext, email: str, password: str) -> Response[Tokens]:
    """Raises NotAuthenticated, TooMany."""
    return tokens_for(context, await start_session(context, email, password))


async def start_session(context: RequestContext, email: str, password: str) -> SignedIn:
    """Raises NotAuthenticated, TooMany."""
    services = context.services
    try:
        return await context.execute(
            sessions.sign_in,
            email=email,
            password=password,
            address=context.address,
            network=context.network,
            agent="".join(character for character in context.request.headers.get("user-agent", "") if character.isprintable()),
            passwords=services.passwords,
            tokens=services.refresh_tokens,
            sign_in_limits=services.sign_in_limits,
            command=anonymous_command(context),
        )
    except NotAuthenticated:
        log.warning("sign-in refused", address=context.address, request_id=context.request_id)
        raise


def tokens_for(context: RequestContext, signed_in: SignedIn) -> Response[Tokens]:
    options, user = context.options, signed_in.user
    access_token = context.services.access_tokens.issue(user=user.id, session=signed_in.session_id, role=user.role, at=utc_now())
    body = Tokens(access_token=access_token, refresh_token=signed_in.refresh_token, expires_in=options.access_ttl)
    return Response(body, cookies=[cookie(context, signed_in.refresh_token, seconds=options.refresh_ttl)])


def cookie(context: RequestContext, value: str, *, seconds: int) -> Cookie:
    return Cookie(
        key=COOKIE,
        value=value,
        max_age=seconds,
        path=context.options.base_path + COOKIE_PATH,
        httponly=True,
        samesite="strict",
        secure=context.options.secure_cookies,
    )


def refresh_token_of(context: RequestContext, data: RefreshToken | None) -> str | None:
    """The refresh token of a request: from the body, the Authorization header, or the cookie, in this order.

    Raises Forbidden if a page of another site may have sent the cookie.
    """
    if data is not None and data.refresh_token:
        return data.refresh_token
    token = bearer(context.request.headers)
    if token is not None and not is_access_token(token):
        return token
    token = context.request.cookies.get(COOKIE)
    if token and not is_same_site(context):
        raise Forbidden("A refresh token in a cookie is accepted only from pages of this site, or with the header X-Requested-With")
    return token or None


def is_access_token(token: str) -> bool:
    return token.count(".") == 2


def is_same_site(context: RequestContext) -> bool:
    """Whether a page of this site sent the request. Another site can send neither our origin nor a header that needs a preflight."""
    headers = context.request.headers
    origin = headers.get("origin")
    if origin is None:
        return "x-requested-with" in headers or "authorization" in headers
    allowed = {context.options.origin, *context.options.cors_origins}
    return origin in allowed or origin.partition("://")[2] == headers.get("host")


def sessions_to_end(context: RequestContext, data: RefreshToken | None) -> set[UUID]:
    """The sessions of the tokens in a request. Blocks.

    Raises NotAuthenticated if there is no token, or only an invalid access token, and Forbidden for a service.
    """
    access_token = bearer(context.request.headers)
    refresh_token = refresh_token_of(context, data)
    by_refresh_token = context.services.refresh_tokens.session_of(refresh_token) if refresh_token else None
    ending = {by_refresh_token} if by_refresh_token is not None else set()
    if access_token is not None and is_access_token(access_token):
        ending |= _session_of_access_token(context, access_token, required=refresh_token is None)
    elif refresh_token is None:
        raise NotAuthenticated(REFRESH_TOKEN_MISSING)
    return ending


def _session_of_access_token(context: RequestContext, token: str, *, required: bool) -> set[UUID]:
    """Empty for an invalid token, unless it is `required`. Raises NotAuthenticated, Forbidden."""
    try:
        claims = context.services.access_tokens.verify(token, at=utc_now())
    except NotAuthenticated:
        if required:
            raise
        return set()
    if claims.session_id is None:
        raise Forbidden("A service token has no session to end; it expires by itself")
    return {claims.session_id}
