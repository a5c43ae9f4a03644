"""Passwords: the rule for new ones, and the proof that a change requires."""

from typing import Protocol
from uuid import UUID

import msgspec

import domain.password
from application.limits.sign_in_attempts import SignInLimits
from application.ports import EventStore, PasswordHasher, PasswordRequester, Secret
from domain.errors import Forbidden
from domain.registration import Registration
from domain.user import User, commitment

PASSWORD = "password"  # noqa: S105 - the kind of a secret
RECENT_SIGN_IN_SECONDS = 900  # difference from the sign-in, in both directions (clocks differ), that replaces the current password


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What shows that the owner of an account makes a change, and not somebody with a stolen session.

    `current` is the password. It is required unless the user signed in recently (`signed_in_for`, seconds). `network` is the client's.
    """

    current: str | None = None
    signed_in_for: float
    network: str = ""


class NewPassword(Proof, frozen=True, kw_only=True):
    """A user's request for another password. All sessions except `keep` end."""

    password: str
    keep: UUID | None = None


def password_secret(user_id: UUID, password_hash: bytes) -> Secret:
    return Secret(kind=PASSWORD, owner=user_id, value=password_hash)


def stored_password_hash(account: User | Registration, log: EventStore) -> bytes | None:
    """The password hash of an account or a registration.

    None if there is none, or if it was replaced in the database: the log commits to another one.
    """
    stored = log.secret(PASSWORD, account.id)
    replaced = stored is not None and account.password_commitment not in {"", commitment(account.id, stored)}
    return None if replaced else stored


def hash_to_resemble(account: User | Registration, log: EventStore, passwords: PasswordHasher) -> bytes | None:
    """The stored hash whose salt the next one of this account, or for this address, keeps.

    An open registration of the address then still signs in, which would otherwise show that the account has another password. None if the
    hash is too weak to be followed, or if there is none.
    """
    stored = stored_password_hash(account, log)
    return None if stored is None or passwords.outdated(stored) else stored


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """The person to whom a password belongs: all names that it must not consist of."""

    email: str
    username: str = ""
    first_name: str = ""
    last_name: str = ""


class Named(Protocol):
    """An account, or an event that begins one."""

    @property
    def email(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def first_name(self) -> str: ...
    @property
    def last_name(self) -> str: ...


def person_of(named: Named) -> Person:
    return Person(email=named.email, username=named.username, first_name=named.first_name, last_name=named.last_name)


def new_password_hash(
    password: str, *, person: Person, passwords: PasswordHasher, requester: PasswordRequester, like: bytes | None = None
) -> bytes:
    """The hash of a new password; with the salt and parameters of the hash `like` if one is given.

    Raises Invalid if the password breaks the rule, Unavailable while too many passwords are hashed.
    """
    password_rule(password, person=person, passwords=passwords)
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
    require_proof(account, new, log, passwords, sign_in_limits)
    requester = PasswordRequester(str(account.id), is_stranger=False)
    changes = {name: value for name in ("email", "first_name", "last_name") if (value := profile.get(name))}
    person = msgspec.structs.replace(person_of(account), **changes)
    like = hash_to_resemble(account, log, passwords)
    return new_password_hash(new.password, person=person, passwords=passwords, requester=requester, like=like)


def require_proof(account: User, proof: Proof, log: EventStore, passwords: PasswordHasher, sign_in_limits: SignInLimits) -> None:
    """Raises Forbidden, TooMany, Unavailable."""
    if proof.current is None and abs(proof.signed_in_for) > RECENT_SIGN_IN_SECONDS:
        raise Forbidden("Send your current password too, or sign in again and change it within 15 minutes")
    if proof.current is not None:
        requester = PasswordRequester(str(account.id), is_stranger=False)
        with sign_in_limits.password(account.email, proof.network, lambda: account.id):
            if not passwords.verify(proof.current, stored_password_hash(account, log), requester=requester):
                raise Forbidden("The current password is wrong")


def password_rule(password: str, *, person: Person, passwords: PasswordHasher) -> None:
    """Raises Invalid for a password that breaks the rule of `domain.password`, or is on the list of common and leaked ones."""
    names = (person.email, person.username, person.first_name, person.last_name, *passwords.service_names)
    domain.password.check(password, names=names)
    if passwords.is_common(password):
        raise domain.password.refused(domain.password.COMMON)
