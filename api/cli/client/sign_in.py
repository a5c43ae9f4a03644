"""The client of somebody who signed in with `bioscope login`."""

import msgspec

from api.cli.client.api_client import Client
from api.cli.client.credentials import store_credentials, stored_credentials
from api.cli.exit_codes import WRONG_USE
from api.cli.output import fail


def open_client(url: str | None) -> Client:
    """A client of the server at `url`, by default the one that issued the stored sign-in. Ends the command if there is no sign-in."""
    credentials = stored_credentials()
    if credentials is None:
        fail("you are not signed in: run `bioscope login` first", WRONG_USE)
    return Client(msgspec.structs.replace(credentials, url=url or credentials.url), store=store_credentials)
