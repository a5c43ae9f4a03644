"""Sending of mails: the transport that the settings choose, and the mailer."""
