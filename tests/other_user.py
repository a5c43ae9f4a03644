"""Runs a command as another user, also from a folder that is closed to that user."""

from pathlib import Path

from infrastructure.embedded.data_folder import passable

NOBODY = 65534
PASS_CLOSED_FOLDERS = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--securebits=+no_setuid_fixup"]


def as_user(user, *paths):
    """A command prefix that becomes `user`; with leave to read closed folders only if one of the `paths` lies in such a folder.

    The secure bit keeps that leave within access(2), which Postgres' initdb asks about its own programs.
    """
    prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return prefix if all(passable(Path(path).parent) for path in paths) else prefix + PASS_CLOSED_FOLDERS
