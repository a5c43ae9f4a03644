"""Passwords: the rule for new ones, and the proof that a change requires."""

from uuid import UUID

import msgspec

from application.limits.sign_in_attempts import SignInLimits
from application.ports import EventStore, PasswordHasher, PasswordRequester, Secret
from domain.errors import Forbidden
from domain.registration import Registration
from domain.user import User, commitment
from domain.values import MAX_PASSWORD_CHARACTERS, MIN_PASSWORD_CHARACTERS, canonical, invalid

COMMON_PASSWORDS = frozenset(
    {"passwordpassword", "123456789012345", "qwertyuiopasdfgh", "adminadminadmin", "letmeinletmeinletmein", "correcthorsebatterystaple"}
)
PASSWORD = "password"  # noqa: S105 - the kind of a secret
RECENT_SIGN_IN_SECONDS = 900  # difference from the sign-in, in both directions (clocks differ), that replaces the current password


class NewPassword(msgspec.Struct, frozen=True, kw_only=True):
    """A user's request for another password. `current` is required unless the user signed in recently (`signed_in_for`, seconds).

    All sessions except `keep` end. `network` is the client's network.
    """

    password: str
    current: str | None = None
    signed_in_for: float
    keep: UUID | None = None
    network: str = ""


def password_secret(user_id: UUID, password_hash: bytes) -> Secret:
    return Secret(kind=PASSWORD, owner=user_id, value=password_hash)


def stored_password_hash(account: User | Registration, log: EventStore) -> bytes | None:
    """The password hash of an account or a registration.

    None if there is none, or if it was replaced in the database: the log commits to another one.
    """
    stored = log.secret(PASSWORD, account.id)
    replaced = stored is not None and account.password_commitment not in {"", commitment(account.id, stored)}
    return None if replaced else stored


def new_password_hash(
    password: str, *, email: str, username: str, passwords: PasswordHasher, requester: PasswordRequester, like: bytes | None = None
) -> bytes:
    """The hash of a new password, with the salt of the hash `like` if one is given.

    Raises Invalid if the password breaks the rule, Unavailable while too many passwords are hashed.
    """
    password_rule(password, email=email, username=username)
    return passwords.hash(password, requester=requester, like=like)


def changed_password_hash(
    account: User,
    new: NewPassword,
    profile: dict[str, str | None],
    log: EventStore,
    passwords: PasswordHasher,
    sign_in_limits: SignInLimits,
) -> bytes:
    """The hash of a user's new password, after the proof is checked. Raises Forbidden, TooMany, Invalid, Unavailable."""
    requester = PasswordRequester(str(account.id), is_stranger=False)
    if new.current is None and abs(new.signed_in_for) > RECENT_SIGN_IN_SECONDS:
        raise Forbidden("Send your current password too, or sign in again and change it within 15 minutes")
    if new.current is not None:
        with sign_in_limits.password(account.email, new.network, lambda: account.id):
            if not passwords.verify(new.current, stored_password_hash(account, log), requester=requester):
                raise Forbidden("The current password is wrong")
    email = profile.get("email") or account.email
    return new_password_hash(new.password, email=email, username=account.username, passwords=passwords, requester=requester)


def password_rule(password: str, *, email: str, username: str) -> str:
    """Accept 15 to 128 characters that are no common password and not the user's own name or address. Raises Invalid."""
    if not MIN_PASSWORD_CHARACTERS <= len(password) <= MAX_PASSWORD_CHARACTERS:
        raise invalid("password", f"must have {MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters, has {len(password)}")
    plain = canonical(password)
    known = COMMON_PASSWORDS | {canonical(email), canonical(username), "bioscopebioscope"}
    if plain in known or len(set(plain)) < 4:
        raise invalid("password", "is too easy to guess: choose one that is neither common nor your own name")
    return password
