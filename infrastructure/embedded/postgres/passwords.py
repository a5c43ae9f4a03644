"""Passwords of the embedded Postgres: random, stored beside the root key, and set before the server accepts connections."""

import base64
import hashlib
import hmac
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from infrastructure.atomic_files import write_private
from infrastructure.child_environment import NATIVE_ENVIRONMENT, PRIVATE_UMASK
from infrastructure.embedded.data_folder import KEYS
from infrastructure.process_lifecycle import CannotStart, die_with_parent

FILE: Final = "postgres.passwords"
ACCESS_RULES: Final = "pg_hba.conf"
OWNER: Final = "postgres"
PASSWORD_BYTES: Final = 32
SALT_BYTES: Final = 16
ITERATIONS: Final = 4096  # the minimum of RFC 7677, enough for a random password
SINGLE_USER_TIMEOUT_SECONDS: Final = 120.0  # includes crash recovery of the cluster
CREATE_ROLE: Final = (
    "do $$ begin if not exists (select from pg_catalog.pg_roles where rolname = '{role}') then create role {role} login; end if; end $$;"
)

Passwords = Mapping[str, str]
"""Passwords by role."""


class PostgresPasswords:
    """The passwords of the owner and of `roles`, in DATA/keys. Created on the first start, and again if the file is lost."""

    def __init__(self, data: Path, *, roles: Sequence[str]) -> None:
        self._file = data / KEYS / FILE
        self._roles = (OWNER, *roles)

    def known(self) -> Passwords:
        """The passwords in the file; none if it is missing or damaged."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.MsgspecError):
            return {}

    def complete(self, in_use: Passwords) -> Passwords:
        """A password for each role: those in use before a restart, else those in the file, and new ones for other roles."""
        return {role: secrets.token_urlsafe(PASSWORD_BYTES) for role in self._roles} | dict(in_use or self.known())

    def keep(self, passwords: Passwords) -> None:
        """Store the passwords. Raises OSError."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._file, msgspec.json.encode(dict(passwords)).decode())


def access_rules(passwords: Passwords) -> str:
    """The content of pg_hba.conf, which requires passwords from everyone. It contains a digest of the passwords that were set."""
    digest = hashlib.sha256(msgspec.json.encode(sorted(passwords.items()))).hexdigest()
    return f"# Written by bioscope for the passwords {digest}.\nlocal all all scram-sha-256\nhost all all all reject\n"


def are_set(cluster: Path, passwords: Passwords) -> bool:
    """Whether the cluster has these passwords and requires them."""
    try:
        return (cluster / ACCESS_RULES).read_text(encoding="utf-8") == access_rules(passwords)
    except (OSError, UnicodeDecodeError):
        return False


def set_passwords(passwords: Passwords, *, command: Sequence[str], cluster: Path, user: int | None) -> None:
    """Create missing roles and set all passwords in Postgres' single-user mode, to which no client can connect.

    `command` starts that mode as `user`. The server receives only verifiers, on its standard input. Raises CannotStart.
    """
    parent = os.getpid()
    try:
        done = subprocess.run(
            command,
            input="".join(map(_statements, passwords, passwords.values())).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=NATIVE_ENVIRONMENT,
            cwd=cluster,
            timeout=SINGLE_USER_TIMEOUT_SECONDS,
            check=False,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            umask=PRIVATE_UMASK,
            preexec_fn=lambda: die_with_parent(parent),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotStart(f"the passwords of Postgres cannot be set: {type(error).__name__}") from None
    errors = done.stderr.decode(errors="replace")
    if done.returncode != 0 or "ERROR:" in errors or "FATAL:" in errors:
        raise CannotStart(f"the passwords of Postgres cannot be set: {errors.strip()[-500:]}")


def write_access_rules(cluster: Path, passwords: Passwords, *, user: int | None) -> None:
    """Write pg_hba.conf. To be called last, since it shows that the passwords are set. Raises OSError."""
    write_private(cluster / ACCESS_RULES, access_rules(passwords), user=user)


def verifier(password: str, *, salt: bytes) -> str:
    """The SCRAM verifier that Postgres stores (RFC 5803). It does not reveal the password."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    client = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, client64, server64 = (base64.b64encode(part).decode() for part in (salt, client, server))
    return f"SCRAM-SHA-256${ITERATIONS}:{salt64}${client64}:{server64}"


def _statements(role: str, password: str) -> str:
    """The statements for a role. In single-user mode each line is one statement."""
    return f"{CREATE_ROLE.format(role=role)}\nalter role {role} password '{verifier(password, salt=os.urandom(SALT_BYTES))}';\n"
