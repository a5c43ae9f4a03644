"""An SMTP server on loopback that keeps what it receives, and misbehaves as a test wants it to."""

import asyncio
import ssl
import threading
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from ipaddress import ip_address

from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ACCEPTED = "250 OK"


class SmtpRig:
    """`url` and `received`, the messages in their order. Use it as a context manager.

    `rcpt` are the answers for single recipients, `data` is the answer to a message. `before_data` is awaited with the server's protocol
    before that answer. `login` is the only user name and password that are accepted; without it, nobody need sign in.
    """

    def __init__(self, *, tls=None, implicit_tls=False, login=None, rcpt=None, data=ACCEPTED, before_data=None):
        self.received, self.recipients, self.logins = [], [], []
        self.rcpt, self.data, self.before_data = rcpt or {}, data, before_data
        self._tls, self._implicit_tls, self._login = tls, implicit_tls, login
        self._loop, self._ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def url(self):
        return f"{'smtps' if self._implicit_tls else 'smtp'}://127.0.0.1:{self.port}"

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            self._loop.create_server(self._protocol, "127.0.0.1", 0, ssl=self._tls if self._implicit_tls else None)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _protocol(self):
        return SMTP(
            self,
            hostname="mail.example.org",
            enable_SMTPUTF8=False,
            tls_context=None if self._implicit_tls else self._tls,
            require_starttls=self._tls is not None and not self._implicit_tls,
            authenticator=self._authenticate,
            auth_required=self._login is not None,
            auth_require_tls=False,
            loop=self._loop,
        )

    def _authenticate(self, _server, _session, _envelope, _mechanism, data):
        given = (data.login.decode(), data.password.decode())
        self.logins.append(given)
        return AuthResult(success=given == self._login, handled=False)

    async def handle_RCPT(self, _server, _session, envelope, address, _options):
        answer = self.rcpt.get(address, ACCEPTED)
        if answer == ACCEPTED:
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server, _session, envelope):
        if self.before_data is not None:
            await self.before_data(server)
        if self.data == ACCEPTED:
            self.recipients.append(envelope.rcpt_tos)
            self.received.append(message_from_bytes(envelope.content, policy=default))
        return self.data


def certificate(folder, *, name="127.0.0.1"):
    """A server's TLS context, and the file of the certificate that a client must trust. `name` is an IP address."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.example.org")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(name))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, key_file = folder / "certificate.pem", folder / "key.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return context, file
