"""The transport that the settings choose: an SMTP server, or a folder."""

from pathlib import Path

from infrastructure.configuration.settings import Settings, WrongSetting, variable
from infrastructure.mail.folder import MailFolder
from infrastructure.mail.messages import sender_of
from infrastructure.mail.smtp import SmtpServer, SmtpTransport


def transport_of(settings: Settings) -> SmtpTransport | MailFolder:
    """Raises WrongSetting if the password of the SMTP server is missing or cannot be read."""
    if settings.smtp_url:
        return smtp_transport_of(settings)
    return MailFolder(settings.mail_path, sender_of(settings.mail_from, settings.base_url))


def smtp_transport_of(settings: Settings) -> SmtpTransport:
    """Raises WrongSetting if the password of the SMTP server is missing or cannot be read."""
    server = SmtpServer.at(settings.smtp_url, smtp_password(settings))
    if server.user and not server.password:
        raise WrongSetting(f"{variable('smtp_password_file')} is not set: {variable('smtp_url')} names a user, who needs a password")
    return SmtpTransport(server, sender_of(settings.mail_from, settings.base_url))


def smtp_password(settings: Settings) -> str:
    """The password of the SMTP server, which the file contains; empty without a file. Raises WrongSetting."""
    name = variable("smtp_password_file")
    if not settings.smtp_password_file:
        return ""
    path = Path(settings.smtp_password_file)
    try:
        password = path.read_text().strip()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise WrongSetting(f"{name}: {path} cannot be read ({reason})") from None
    if not password:
        raise WrongSetting(f"{name}: {path} is empty")
    return password
