"""The user that Postgres runs as. Postgres refuses root, users without a name, and folders of other users."""

import os
import pwd
import subprocess
from pathlib import Path

from infrastructure.child_environment import NATIVE_ENVIRONMENT
from infrastructure.process_lifecycle import CannotStart


def repair_access(cluster: Path) -> None:
    """Restore mode and owner of a copied cluster. Raises CannotStart if it belongs to another user."""
    owner, us = cluster.stat().st_uid, os.geteuid()
    if us not in {0, owner}:
        raise CannotStart(f"{cluster} belongs to another user (uid {owner}): change the owner with chown -R, or start as that user")
    if owner == 0:
        _give_to(cluster, nobody())
    cluster.chmod(0o700)


def _give_to(cluster: Path, user: int) -> None:
    """Change the owner, of the folder itself last, so that an interrupted change is repeated."""
    for path in cluster.rglob("*"):
        os.chown(path, user, user, follow_symlinks=False)
    os.chown(cluster, user, user)


def as_known_user(uid: int) -> list[str]:
    """A command prefix for initdb and single-user mode, which need a user with a name; empty for such a user. Raises CannotStart.

    A uid without an entry in the passwd database appears as `nobody` in its own user namespace. Its files still belong to the uid.
    """
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return _as_nobody(uid)
    return []


def _as_nobody(uid: int) -> list[str]:
    prefix = ["unshare", "--user", f"--map-user={nobody()}", f"--map-group={nobody()}"]
    try:
        allowed = subprocess.run([*prefix, "true"], env=NATIVE_ENVIRONMENT, capture_output=True, check=False).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        raise CannotStart(
            f"the uid {uid} has no entry in /etc/passwd, which Postgres needs to create a cluster and to set its passwords:"
            " add one, start as a user that has one, or set BIOSCOPE_POSTGRES_URL"
        )
    return prefix


def nobody() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        raise CannotStart("as root, Postgres needs a user `nobody` to run as: create it, or run bioscope as another user") from None
