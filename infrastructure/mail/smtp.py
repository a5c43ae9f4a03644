"""Mails over SMTP (RFC 5321), encrypted with verified certificates."""

import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.headerregistry import Address
from threading import Timer
from typing import Final, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from application.mail.mail import Mail, MailDeferred, MailRefused, MailServerUnavailable
from infrastructure.configuration.settings import LOOPBACK_HOSTS
from infrastructure.mail.messages import message_of, recipient_of

SUBMISSION_PORT: Final = 587
IMPLICIT_TLS_PORT: Final = 465
CLOSING: Final = 421  # the server ends the connection, whatever it was asked
NOT_ABOUT_THE_MAIL: Final = frozenset({CLOSING, 530, 534, 535, 538})  # authentication or encryption is missing


class SmtpLimits(NamedTuple):
    """A server must answer each step within `answer_seconds`, and take a mail within `total_seconds`."""

    answer_seconds: float = 10.0
    total_seconds: float = 60.0


DEFAULT_LIMITS: Final = SmtpLimits()


class SmtpServer(NamedTuple):
    """Where mails are handed over. Over smtp://, the connection is encrypted by STARTTLS unless `encrypts` is false."""

    host: str
    port: int
    user: str = ""
    password: str = ""
    implicit_tls: bool = False
    encrypts: bool = True

    @classmethod
    def at(cls, url: str, password: str = "") -> Self:
        """From smtp://USER@HOST:PORT or smtps://... Only a server on this machine is used without encryption."""
        parts = urlsplit(url)
        implicit_tls, host = parts.scheme == "smtps", parts.hostname or "localhost"
        return cls(
            host=host,
            port=parts.port or (IMPLICIT_TLS_PORT if implicit_tls else SUBMISSION_PORT),
            user=unquote(parts.username or ""),
            password=password,
            implicit_tls=implicit_tls,
            encrypts=implicit_tls or host not in LOOPBACK_HOSTS,
        )


class SmtpTransport:
    """Implements `MailTransport`. Each mail has a connection of its own. `tls` is the context that verifies certificates."""

    def __init__(
        self, server: SmtpServer, sender: Address, *, limits: SmtpLimits = DEFAULT_LIMITS, tls: ssl.SSLContext | None = None
    ) -> None:
        self._server, self._sender, self._limits = server, sender, limits
        self._tls = tls or ssl.create_default_context()

    def __str__(self) -> str:
        return f"the SMTP server {self._server.host}:{self._server.port}"

    def send(self, mail: Mail) -> None:
        message = message_of(mail, self._sender)
        recipient = recipient_of(mail).addr_spec
        with self._connected() as client:
            try:
                client.send_message(message, from_addr=self._sender.addr_spec, to_addrs=[recipient])
            except smtplib.SMTPRecipientsRefused as refused:
                ((code, _),) = refused.recipients.values()
                raise self._refusal(code, "the recipient") from None
            except smtplib.SMTPDataError as refused:
                raise self._refusal(refused.smtp_code, "the mail") from None

    def check(self) -> None:
        """Connect and sign in. Raises MailServerUnavailable."""
        with self._connected() as client:
            client.noop()

    def _refusal(self, code: int, what: str) -> MailRefused | MailDeferred | MailServerUnavailable:
        """The text of the server is left out, since it usually repeats the address."""
        text = f"{self} refuses {what} with code {code}"
        if code in NOT_ABOUT_THE_MAIL or code < 400:  # less than 400: a broken answer
            return MailServerUnavailable(text)
        return MailRefused(text) if code >= 500 else MailDeferred(text)

    @contextmanager
    def _connected(self) -> Iterator[smtplib.SMTP]:
        """A connection that is ready for a mail. Raises MailServerUnavailable, also for errors within the block."""
        try:
            with self._open() as client, _ended_after(self._limits.total_seconds, client):
                if self._server.encrypts and not self._server.implicit_tls:
                    client.starttls(context=self._tls)
                if self._server.user:
                    client.login(self._server.user, self._server.password)
                yield client
        except ssl.SSLCertVerificationError as error:
            raise MailServerUnavailable(f"the certificate of {self} is not valid ({error.verify_message})") from None
        except smtplib.SMTPNotSupportedError:
            raise MailServerUnavailable(f"{self} supports neither STARTTLS nor sign-in as it is configured") from None
        except smtplib.SMTPAuthenticationError as error:
            raise MailServerUnavailable(f"{self} refuses the user name or password with code {error.smtp_code}") from None
        except smtplib.SMTPResponseException as error:
            raise MailServerUnavailable(f"{self} refuses with code {error.smtp_code}") from None
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise MailServerUnavailable(f"{self} cannot be used ({_cause(error)})") from None

    @contextmanager
    def _open(self) -> Iterator[smtplib.SMTP]:
        """How the server answers the farewell says nothing of the mail, which it has taken or refused before."""
        client = self._connect()
        try:
            yield client
        finally:
            with suppress(OSError, smtplib.SMTPException):
                client.quit()
            client.close()

    def _connect(self) -> smtplib.SMTP:
        server, seconds, name = self._server, self._limits.answer_seconds, _own_name()
        if server.implicit_tls:
            return smtplib.SMTP_SSL(server.host, server.port, local_hostname=name, timeout=seconds, context=self._tls)
        return smtplib.SMTP(server.host, server.port, local_hostname=name, timeout=seconds)


@contextmanager
def _ended_after(seconds: float, client: smtplib.SMTP) -> Iterator[None]:
    """Ends the connection after `seconds`: a server that sends a byte now and then exceeds no other time limit."""
    timer = Timer(seconds, _end, (client,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(client: smtplib.SMTP) -> None:
    connection = client.sock
    if connection is not None:
        with suppress(OSError):  # it ended in the meantime
            connection.shutdown(socket.SHUT_RDWR)


def _own_name() -> str:
    """The name of this machine for the greeting, without a look-up, which could take long."""
    name = socket.gethostname()
    return name if "." in name and name.isascii() else "[127.0.0.1]"


def _cause(error: Exception) -> str:
    """A few words without what the server said."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
