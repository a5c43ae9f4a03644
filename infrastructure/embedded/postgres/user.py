"""The user that Postgres runs as, and what it must own: Postgres refuses root, users without a name, and folders of others."""

import os
import pwd
import subprocess
from pathlib import Path

from infrastructure.child_environment import NATIVE_ENVIRONMENT
from infrastructure.process_lifecycle import CannotStart


def repair_access(cluster: Path) -> None:
    """Restore the mode and the owner that a copy of the cluster lost. Raises CannotStart for one of another user."""
    owner, us = cluster.stat().st_uid, os.geteuid()
    if us not in {0, owner}:
        raise CannotStart(f"{cluster} belongs to another user (uid {owner}): give it to yourself with chown -R, or start as that user")
    if owner == 0:
        _give_to(cluster, nobody())
    cluster.chmod(0o700)


def _give_to(cluster: Path, user: int) -> None:
    """The folder itself last, so that one that was interrupted is done again."""
    for path in cluster.rglob("*"):
        os.chown(path, user, user, follow_symlinks=False)
    os.chown(cluster, user, user)


def as_known_user(uid: int) -> list[str]:
    """A command prefix for initdb and for single-user mode, which demand a user with a name: none for such a user. Raises CannotStart.

    A uid without an entry in the passwd database is shown to them as `nobody`, in a user namespace of its own. What it writes
    belongs to the uid all the same.
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
            f"the uid {uid} has no entry in /etc/passwd, which Postgres needs to make a cluster and to set its passwords:"
            " add one, start as a user that has one, or set BIOSCOPE_POSTGRES_URL"
        )
    return prefix


def nobody() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        raise CannotStart("as root, Postgres needs a user `nobody` to run as: make one, or run as another user") from None
