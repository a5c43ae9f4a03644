"""The policy for machines whose kernel lacks a layer of the sandbox."""

from typing import Final

import structlog

from infrastructure.configuration.settings import Settings, variable
from infrastructure.sandbox.layers import Layers

log = structlog.get_logger()

ACCEPT: Final = f"{variable('accept_unsandboxed')}=1"


class Unsandboxed(Exception):
    """The kernel cannot isolate inference, and the operator has not accepted that. The message says what to do."""


def remedy(layers: Layers) -> str:
    """A sentence with the missing layers and what to do."""
    return (
        f"the kernel cannot isolate the processes that decode images and run models (missing: {', '.join(layers.missing)}): use Linux 5.19 "
        f"or newer with Landlock and seccomp, allowed by the container's security profile, or accept the risk with {ACCEPT}"
    )


def require_sandbox(settings: Settings, layers: Layers) -> None:
    """Raises Unsandboxed in production if a layer is missing, unless the operator accepts that; otherwise logs a warning."""
    if not layers.missing:
        return
    if settings.environment == "production" and not settings.accept_unsandboxed:
        raise Unsandboxed(remedy(layers))
    log.warning("inference is not sandboxed", missing=list(layers.missing))
