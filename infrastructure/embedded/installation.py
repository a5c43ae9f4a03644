"""An embedded installation: its root key, the environment of its processes, and its published addresses."""

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from infrastructure.atomic_files import write_private
from infrastructure.child_environment import storage_environment, supervised_environment
from infrastructure.configuration.settings import PREFIX, Settings
from infrastructure.embedded.data_folder import holder
from infrastructure.process_lifecycle import CannotStart
from infrastructure.security.keys import new_root_key

ADDRESSES = (
    "postgres_url",
    "postgres_owner_url",
    "kafka_url",
    "kafka_port",
    "redis_url",
    "host",
    "port",
    "kafka_fetch_wait",
    "kafka_groups",
)
NOT_OUR_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
OWNER_ONLY = frozenset({"postgres_owner_url"})


class NotRunning(Exception):
    """No system runs on this data folder. The message says how to start one."""


class RunningState(msgspec.Struct, frozen=True):
    pid: int
    addresses: dict[str, str | int | float | bool]
    metrics_ports: Mapping[str, int] = {}  # of each process that serves metrics


def ensure_root_key(settings: Settings) -> None:
    """Create the root key on the first start. Raises CannotStart if it is missing but data exists that needs it."""
    path = settings.root_key_path
    if path.exists() or not path.is_relative_to(settings.data):
        return
    if (settings.data / "postgres").exists():
        raise CannotStart(f"the root key {path} is missing, and private data cannot be read without it: restore it from your copy")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, new_root_key() + "\n")


def root_key_of(settings: Settings, copy: Path | None) -> Path:
    """The path of the root key to read: the copy, or its usual path. Raises CannotStart if there is none, or two that differ."""
    path = settings.root_key_path
    if copy is None and not path.exists():
        raise CannotStart(f"the root key of the backup is needed: name your copy with --root-key, or put it at {path}")
    if copy is not None and path.exists() and path.read_text(encoding="utf-8").strip() != copy.read_text(encoding="utf-8").strip():
        raise CannotStart(f"{path} holds another root key than {copy}")
    return copy or path


def take_root_key(settings: Settings, copy: Path | None) -> None:
    """Copy the root key to its path, unless one exists there."""
    path = settings.root_key_path
    if copy is not None and not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, copy.read_text(encoding="utf-8"))


def environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process: a few of `inherited`, and the settings except those of the database owner."""
    inherited_variables = supervised_environment(settings.data, inherited) | (
        storage_environment(inherited) if settings.blobs_url.startswith("s3://") else {}
    )
    own_variables = {name: _text(getattr(settings, name)) for name in settings.__struct_fields__ if name not in OWNER_ONLY}
    return inherited_variables | {PREFIX + name.upper(): text for name, text in own_variables.items() if text}


def _text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return ",".join(value)
        case _:
            return str(value)


def with_absolute_paths(settings: Settings) -> Settings:
    """The settings with absolute paths, for processes with another working directory."""
    blobs = settings.blobs_url
    if blobs and "://" not in blobs:
        blobs = str(Path(blobs).absolute())
    return msgspec.structs.replace(settings, data=settings.data.absolute(), blobs_url=blobs)


def with_free_port(settings: Settings) -> Settings:
    """Replace port 0 by a free one. Raises CannotStart if the port is in use."""
    with bound_socket(settings) as server:
        return msgspec.structs.replace(settings, port=server.getsockname()[1])


def bound_socket(settings: Settings) -> socket.socket:
    """A socket bound to the address in the settings; `::` includes IPv4. Raises CannotStart."""
    server = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if server.family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, settings.host != "::")
        server.bind((settings.host, settings.port))
    except OSError as error:
        server.close()
        raise CannotStart(_cannot_listen(settings, error)) from None
    return server


def _cannot_listen(settings: Settings, error: OSError) -> str:
    number = error.errno or 0
    if number < 0 or number in NOT_OUR_ADDRESS:  # negative if the name cannot be resolved
        return f"{settings.host} is not an address of this machine: correct BIOSCOPE_HOST"
    address, reason = settings.local_url.removeprefix("http://"), os.strerror(number)
    return f"{address} cannot be bound ({reason}): choose another port with --port or BIOSCOPE_PORT (0: a free one)"


def publish(settings: Settings, *, metrics_ports: Mapping[str, int]) -> None:
    """Write the addresses of the running system, and the metrics ports of its processes, into its data folder."""
    addresses = {name: getattr(settings, name) for name in ADDRESSES}
    write_private(_file(settings.data), msgspec.json.encode(RunningState(os.getpid(), addresses, metrics_ports)).decode())


def withdraw(data: Path) -> None:
    _file(data).unlink(missing_ok=True)


def running_settings(settings: Settings) -> Settings:
    """`settings` with the addresses of the system that runs on its data folder. Raises NotRunning."""
    running = _running_state(settings.data)
    if running is not None:
        return msgspec.structs.replace(settings, **{name: value for name, value in running.addresses.items() if _is_open(settings, name)})
    if settings.postgres_url:
        return settings
    raise NotRunning(
        f"nothing runs on {settings.data}: start it with `bioscope up`, name its folder with --data, or set BIOSCOPE_POSTGRES_URL"
    )


def running_metrics_ports(data: Path) -> Mapping[str, int]:
    """The metrics port of each process of the system that runs on this data folder; empty if none runs or serves metrics."""
    running = _running_state(data)
    return running.metrics_ports if running is not None else {}


def _running_state(data: Path) -> RunningState | None:
    """What the system that runs on this data folder has published; None if none runs."""
    try:
        running = msgspec.json.decode(_file(data).read_bytes(), type=RunningState)
    except (OSError, msgspec.DecodeError):
        return None
    return running if running.pid == holder(data) else None


def _is_open(settings: Settings, name: str) -> bool:
    return not name.endswith("_url") or not getattr(settings, name)


def _file(data: Path) -> Path:
    return data / "running.json"
