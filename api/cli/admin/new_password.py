"""A new password for an account."""

import os
import secrets
from enum import StrEnum

from api.cli.prompts import ask_password

PASSWORD_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # noqa: S105 - without characters that look alike
PASSWORD_GROUPS, PASSWORD_GROUP_LENGTH = 5, 5


class Origin(StrEnum):
    """Where a new password comes from; the value is the text for the operator."""

    RANDOM = "a new password, printed once and stored nowhere"
    PROMPT = "the password that you typed"
    ENVIRONMENT = "the password of BIOSCOPE_PASSWORD"


def new_password(*, prompt: bool) -> tuple[str, Origin]:
    """Typed, or that of BIOSCOPE_PASSWORD, or a random one."""
    if prompt:
        otherwise = "set BIOSCOPE_PASSWORD and leave out --prompt"
        return ask_password("New password", otherwise=otherwise, confirmation_prompt=True), Origin.PROMPT
    if given := os.environ.get("BIOSCOPE_PASSWORD"):
        return given, Origin.ENVIRONMENT
    return random_password(), Origin.RANDOM


def random_password() -> str:
    """About 124 bits, easy to read aloud. Not one that the list of common passwords would refuse by mistake."""
    from infrastructure.security.common_passwords import is_common

    while is_common(password := _random_groups()):
        pass
    return password


def _random_groups() -> str:
    groups = ("".join(secrets.choice(PASSWORD_ALPHABET) for _ in range(PASSWORD_GROUP_LENGTH)) for _ in range(PASSWORD_GROUPS))
    return "-".join(groups)
