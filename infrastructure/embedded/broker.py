"""The embedded in-memory Kafka broker of librdkafka, in its own process. Each start gives a new port and empty topics.

Clients outside of the system connect first to a fixed port, which forwards to the broker. The broker then tells them its own port.
"""

import os
import signal
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from infrastructure.atomic_files import write_atomically
from infrastructure.child_environment import supervised_environment
from infrastructure.configuration.names import PREFIX
from infrastructure.embedded.child import Child, python
from infrastructure.embedded.port_forwarding import HOST, forward_always
from infrastructure.embedded.server import EmbeddedServer
from infrastructure.kafka.limits import MAX_RECORD_BYTES
from infrastructure.process_lifecycle import CannotStart

FRAME_BYTES = 512  # reserve that librdkafka requires


class Broker(EmbeddedServer):
    """The embedded broker. `url` is known once it is ready. `port` is the fixed port for clients outside of the system; 0: none."""

    name = "broker"
    stop_timeout_seconds = 1.0

    def __init__(self, data: Path, *, port: int = 0) -> None:
        super().__init__(data)
        self._port = port
        self._address = self.folder / "broker"
        self._url = ""

    @property
    def url(self) -> str:
        return self._url

    def _started(self) -> Child:
        if find_spec("confluent_kafka") is None:
            raise CannotStart("the embedded broker is not installed: pip install 'bioscope[embedded]', or set BIOSCOPE_KAFKA_URL")
        self._address.unlink(missing_ok=True)
        self._url = ""
        environment = supervised_environment(self.data, os.environ)
        argv = python("infrastructure.embedded.broker", str(self._address), str(self._port))
        return Child(argv, log=self.log, environment=environment)

    def _answers(self) -> bool:
        with suppress(FileNotFoundError):
            self._url = self._url or self._address.read_text()
        return bool(self._url)

    def _clean(self) -> None:
        self._address.unlink(missing_ok=True)


def serve(address: Path, port: int) -> None:
    """Run the broker in this process, and forward `port` to it unless that is 0.

    Writes host:port of the broker into the file `address` once both answer. Ends with a message if the port cannot be bound.
    """
    from confluent_kafka import Producer  # noqa: PLC0415 - only needed in this process

    limit = {"receive.message.max.bytes": MAX_RECORD_BYTES, "fetch.max.bytes": MAX_RECORD_BYTES - FRAME_BYTES}
    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored:1", "log_level": 3} | limit)
    broker = next(iter(owner.list_topics(timeout=10).brokers.values()))
    listener = _listener(port) if port else None
    write_atomically(address, [f"{broker.host}:{broker.port}".encode()], durable=False)
    if listener is not None:
        forward_always(listener, (broker.host, broker.port))
    while True:
        signal.pause()


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        sys.exit(f"{HOST}:{port} cannot be bound ({error.strerror}): choose another port with {PREFIX}KAFKA_PORT (0: none)")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
