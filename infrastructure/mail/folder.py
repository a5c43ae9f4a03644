"""Mails as files, where no SMTP server is set."""

import re
from email.headerregistry import Address
from pathlib import Path
from typing import Final

from application.mail.mail import Mail, MailServerUnavailable
from infrastructure.atomic_files import write_atomically
from infrastructure.mail.messages import message_of

KEPT_FILES: Final = 1000  # the newest
UNSAFE: Final = re.compile(r"[^\w.-]")


class MailFolder:
    """Implements `MailTransport`: writes each mail to a file `TIME-ID.eml`. The same mail replaces its file."""

    def __init__(self, folder: Path, sender: Address, *, kept: int = KEPT_FILES) -> None:
        self._folder, self._sender, self._kept = folder, sender, kept

    def __str__(self) -> str:
        return f"the folder {self._folder}"

    def send(self, mail: Mail) -> None:
        path = self.path_of(mail)
        content = bytes(message_of(mail, self._sender))
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, [content])
            self._delete_oldest()
        except OSError as error:
            raise MailServerUnavailable(f"{self} cannot be written to ({error.strerror})") from None

    def path_of(self, mail: Mail) -> Path:
        return self._folder / f"{mail.at:%Y%m%dT%H%M%S}-{UNSAFE.sub('_', mail.id)}.eml"

    def _delete_oldest(self) -> None:
        for path in sorted(self._folder.glob("*.eml"))[: -self._kept]:
            path.unlink(missing_ok=True)
