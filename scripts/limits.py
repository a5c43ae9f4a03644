"""Writes the table of limits in docs/api.md, from the defaults of the settings and the constants of the code (`make limits`)."""

import re
from pathlib import Path
from typing import Final

import msgspec

from api.kserve import routes
from api.middleware import body_limits, outer
from api.options import WebOptions
from application.limits.sign_in_attempts import SignInRates
from infrastructure.configuration.settings import Settings, variable
from infrastructure.http import connections, websockets
from infrastructure.security import passwords
from projections import pagination
from scripts.blocks import with_block

PAGE: Final = Path(__file__).parent.parent / "docs" / "api.md"
BEGIN: Final = "<!-- `make limits` writes the table from here ... -->\n"
END: Final = "<!-- ... to here. -->\n"
UNITS: Final = (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024))
OPTIONS: Final = WebOptions(base_url="")

# {name} is the default of a setting, which the last column then names, or one of CONSTANTS. A name with `bytes` is a size in bytes.
ROWS: Final = """
connections without a valid token | {anonymous_connections} | the one that was idle longest is closed
connections of users | {connections} | the one that was idle longest is closed
connections of one address | {connections_per_address} | the one of the address that was idle longest is closed
time for the head of a request, from the connection or the last answer | {request_head_seconds} s | closed
query | {query_bytes} | 414
headers | {header_bytes}, {header_count} of them; as many trailers | 431; closed
requests in progress, except health and metrics | {requests}; a third only with token, signed address or cookie | 503 with `Retry-After`
body without a token | {anonymous_body_max_bytes} within {anonymous_body_seconds} s | 413, 408
unfinished bodies without a token | {anonymous_bodies}; of one address {anonymous_bodies_per_address} | the oldest is answered 429
JSON body with a token, in UTF-8 | {json_bytes}, {json_depth} deep | 413, 400
image in one request | {upload_max_bytes} | 413
model package in one request | {model_max_bytes} | 413
image | {image_max_pixels} pixels, {image_max_bands} bands, {image_max_pages} pages | refused or rejected, with the reason
images in one request for predictions | {kserve_max_images}, each as above | 422
body of a request for predictions | {prediction_bytes} more than the largest image as base64, within {prediction_seconds} s | 413, 408
requests for predictions in progress | {predictions}; of one account {predictions_of_one} | 503; 429 with `Retry-After`
their bodies together | {predictions_bytes}; of one account {prediction_bytes_of_one} | 503; 429 with `Retry-After`
requests for predictions of one account | {kserve_requests_per_minute} a minute | 429 with `Retry-After`
exports in progress of one account | {exports} | 429 with `Retry-After`
entries in a page | {page} | 422
requests for previews that wait for an inspection | {previews}, each for {preview_seconds} s | answered at once
failed passwords of one account from one address | {logins_per_minute_account} a minute | 429 with `Retry-After`
the same, from all addresses without a sign-in in {known_address_days} days | {logins_per_hour_account} an hour | 429 with `Retry-After`
the same, of all accounts from one address; refused refresh tokens | {logins_per_minute_address} a minute | 429 with `Retry-After`
registrations and requests for mails from one address | {registrations_per_hour_address} an hour | 429 with `Retry-After`
mails to one e-mail address, requested from one address | {mails_per_hour_address} an hour | 429 with `Retry-After`
password resets, from all addresses without a sign-in in {known_address_days} days | {mails_per_hour_strangers} an hour | nothing is sent
other mails to one e-mail address, from all these addresses | {mails_per_hour_strangers} an hour | nothing is sent
user names in use that one link is refused | {user_names} an hour | 429 with `Retry-After`
changes by people to one dataset, image, device, job or account | {changes_per_minute_stream} a minute | 429 with `Retry-After`
passwords being hashed | {hashed} at once; {hashes_waiting} wait {hash_seconds} s, of one caller {hashes_of_one} | 503 with `Retry-After`
WebSockets and event streams | {websockets}; of one account {websockets_per_account} | closed with 4429; 429 with `Retry-After`
WebSockets before the first `auth` | {anonymous_websockets}; of one address {anonymous_websockets_per_address} | the oldest is closed: 4429
message of a WebSocket | {websocket_max_bytes}; before the first `auth` {anonymous_body_max_bytes} | closed with 1009, unread
messages of one WebSocket | {messages} a second | closed with 4429
frames of one WebSocket, pings and fragments included | {frames} a second | closed
rows read for the subscriptions of one account | {live_rows_per_second} a second | they arrive later
"""

CONSTANTS: Final = {
    "query_bytes": outer.MAX_QUERY_BYTES,
    "header_bytes": outer.MAX_HEADERS_BYTES,
    "header_count": connections.MAX_HEADERS,
    "requests": OPTIONS.admission.normal,
    "json_bytes": body_limits.MAX_JSON_BYTES,
    "json_depth": body_limits.MAX_DEPTH,
    "prediction_bytes": routes.MAX_BYTES_BESIDE_IMAGES,
    "prediction_seconds": OPTIONS.predictions.body_seconds,
    "predictions": OPTIONS.predictions.max_requests,
    "predictions_of_one": OPTIONS.predictions.max_requests_per_account,
    "predictions_bytes": OPTIONS.predictions.max_body_bytes,
    "prediction_bytes_of_one": OPTIONS.predictions.max_body_bytes_per_account,
    "exports": OPTIONS.exports_per_account,
    "page": pagination.MAX_PAGE,
    "previews": OPTIONS.max_preview_waits,
    "preview_seconds": OPTIONS.preview_wait_seconds,
    "hashed": passwords.MAX_CONCURRENT_HASHES,
    "hashes_waiting": passwords.MAX_QUEUED,
    "hashes_of_one": passwords.MAX_QUEUED_PER_REQUESTER,
    "hash_seconds": passwords.QUEUE_TIMEOUT_SECONDS,
    "user_names": SignInRates().user_names_per_hour,
    "frames": websockets.MAX_FRAMES,
    "messages": OPTIONS.live.max_messages_per_second,
}


def table() -> str:
    """The table in Markdown: what is limited, the limit, what happens beyond it, and the settings that change it."""
    defaults = msgspec.structs.asdict(Settings())
    rows = ["| what | how much | beyond it | settings |", "|---|---|---|---|"]
    for row in ROWS.strip().splitlines():
        names = dict.fromkeys(re.findall(r"{(\w+)}", row))
        settings = ", ".join(f"`{variable(name)}`" for name in names if name in defaults)
        values = {name: _formatted(name, (defaults | CONSTANTS)[name]) for name in names}
        rows.append(f"| {row.format(**values)} | {settings} |")
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """`text` with a new table."""
    return with_block(text, BEGIN, END, table())


def _formatted(name: str, value: float) -> str:
    if "bytes" not in name:
        return f"{value:,}".removesuffix(".0")
    unit, size = next((unit, size) for unit, size in UNITS if value % size == 0)
    return f"{value // size:,} {unit}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
