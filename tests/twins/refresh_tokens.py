"""The in-memory twin of refresh tokens."""

from datetime import timedelta
from secrets import token_urlsafe

import msgspec

from application.ports import OpenSession, RefreshResult
from domain.errors import NotAuthenticated, RefreshTokenReused

GRACE_PERIOD = timedelta(seconds=10)


class Issued(msgspec.Struct):
    session: object
    user: object
    issued_at: object
    expires_at: object
    used_at: object = None
    child: str = ""


class MemoryRefreshTokens:
    """Behaves like `infrastructure.security.refresh_tokens.PostgresRefreshTokens`; `lifetime` without use."""

    def __init__(self, *, lifetime=timedelta(days=7)):
        self._lifetime, self._issued = lifetime, {}

    def close(self):
        pass

    def issue(self, *, session, user, at):
        token = token_urlsafe(36)
        self._issued[token] = Issued(session, user, at, at + self._lifetime)
        return token

    def rotate(self, token, *, at):
        issued = self._issued.get(token)
        if issued is None or (issued.used_at is None and issued.expires_at <= at):
            raise NotAuthenticated("Invalid or expired refresh token")
        if issued.used_at is None:
            issued.used_at, issued.child = at, self.issue(session=issued.session, user=issued.user, at=at)
        elif abs(at - issued.used_at) > GRACE_PERIOD:
            raise RefreshTokenReused(issued.session, issued.user)
        return RefreshResult(session_id=issued.session, user_id=issued.user, token=issued.child)

    def session_of(self, token):
        return self._issued[token].session if token in self._issued else None

    def open_sessions(self, user, *, at):
        theirs = [one for one in self._issued.values() if one.user == user]
        usable = {one.session for one in theirs if one.used_at is None and one.expires_at > at}
        last = {session: max(one.issued_at for one in theirs if one.session == session) for session in usable}
        return [OpenSession(session, at) for session, at in sorted(last.items(), key=lambda one: (one[1], one[0]), reverse=True)]

    def revoke(self, session):
        self._issued = {token: issued for token, issued in self._issued.items() if issued.session != session}

    def revoke_user(self, user, *, but=None):
        revoked = list(dict.fromkeys(one.session for one in self._issued.values() if one.user == user and one.session != but))
        for session in revoked:
            self.revoke(session)
        return revoked
