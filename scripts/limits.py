"""The table of limits in docs/api.md, from the defaults of the settings and the constants of the code. `make limits` writes it."""

from pathlib import Path
from typing import Final

import msgspec

from api.admission import AT_ONCE
from api.bodies import DEPTH_MOST, JSON_MOST
from api.edge import HEADERS_MOST as HEADERS_BYTES
from api.edge import QUERY_MOST
from api.live import MESSAGES_MOST
from application.context import Options
from infrastructure.http_connections import HEADERS_MOST
from infrastructure.passwords import AT_ONCE as HASHED_AT_ONCE
from infrastructure.passwords import PATIENCE, WAITING_MOST
from infrastructure.settings import Settings, variable
from projections.reading import PAGE_MOST

PAGE: Final = Path(__file__).parent.parent / "docs" / "api.md"
BEGIN: Final = "<!-- The table is written by `make limits`. -->\n"
END: Final = "<!-- The end of the table. -->\n"
UNITS: Final = (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024))

of: Final = Settings()
options: Final = Options(base_url="")


def size(count: int) -> str:
    """Bytes in the largest unit that leaves a whole number."""
    return next((f"{count // unit:,} {name}" for name, unit in UNITS if count % unit == 0), f"{count:,} bytes")


ROWS: Final[tuple[tuple[str, str, tuple[str, ...], str], ...]] = (
    ("**connections** without a valid token", f"{of.anonymous_connections:,}", ("anonymous_connections",), "the one that rested longest is closed"),
    ("connections of users", f"{of.connections:,}", ("connections",), "the same"),
    ("connections of one address", f"{of.connections_per_address:,}", ("connections_per_address",), "the same, among those of the address"),
    ("the head of a request, from the connection or the answer before it", f"{of.request_head_seconds:g} s", ("request_head_seconds",), "closed"),
    ("query; headers; their number", f"{size(QUERY_MOST)}; {size(HEADERS_BYTES)}; {HEADERS_MOST}", (), "414; 431"),
    ("**requests** worked on at once", f"{AT_ONCE}; a third of them only with a token or signed address", (), "503 with `Retry-After`"),
    ("body without a token", f"{size(of.anonymous_body_max_bytes)} within {of.anonymous_body_seconds:g} s", ("anonymous_body_max_bytes", "anonymous_body_seconds"), "413; 408"),
    ("unfinished bodies without a token; of one address", f"{of.anonymous_bodies}; {of.anonymous_bodies_per_address}", ("anonymous_bodies", "anonymous_bodies_per_address"), "the oldest is answered 429"),
    ("JSON body with a token, in UTF-8; its depth", f"{size(JSON_MOST)}; {DEPTH_MOST}", (), "413; 400"),
    ("an image in one request", f"{size(of.upload_max_bytes)}, {of.image_max_pixels // 10**6} megapixels, {of.image_max_bands} bands, {of.image_max_pages} pages", ("upload_max_bytes", "image_max_pixels", "image_max_bands", "image_max_pages"), "413, or rejected with the reason"),
    ("entries of a page", f"{PAGE_MOST}", (), "422"),
    ("previews and thumbnails that wait for an inspection", f"{options.max_preview_waits} at once, each {options.preview_wait_seconds:g} s", (), "answered at once"),
    ("**failed tries of a password**: of one account from one address", f"{of.logins_per_minute_account} a minute", ("logins_per_minute_account",), "429 with `Retry-After`"),
    ("of one account from all addresses that it has not signed in from", f"{of.logins_per_hour_account} an hour; {of.known_address_days} days", ("logins_per_hour_account", "known_address_days"), "the same"),
    ("of one address; refused refresh tokens too", f"{of.logins_per_minute_address} a minute", ("logins_per_minute_address",), "the same"),
    ("registrations of one address", f"{of.registrations_per_hour_address} an hour", ("registrations_per_hour_address",), "the same"),
    ("passwords that are hashed; that wait for it", f"{HASHED_AT_ONCE} at once; {WAITING_MOST}, each {PATIENCE:g} s", (), "503 with `Retry-After`"),
    ("**WebSockets**; of one account", f"{of.websockets:,}; {of.websockets_per_account}", ("websockets", "websockets_per_account"), "closed with 4429"),
    ("WebSockets before the first `auth`; of one address", f"{of.anonymous_websockets}; {of.anonymous_websockets_per_address}", ("anonymous_websockets", "anonymous_websockets_per_address"), "the one that rested longest is closed with 4429"),
    ("a message; before the first `auth`", f"{size(of.websocket_max_bytes)}; {size(of.anonymous_body_max_bytes)}", ("websocket_max_bytes", "anonymous_body_max_bytes"), "closed with 1009 before it is read"),
    ("messages of one WebSocket", f"{MESSAGES_MOST} a second", (), "closed with 4429"),
    ("rows that the subscriptions of one account read", f"{of.live_rows_per_second:,} a second", ("live_rows_per_second",), "they come later"),
)  # fmt: skip


def table() -> str:
    head = "| what | default | setting | beyond it |\n|---|---|---|---|\n"
    return head + "".join(
        f"| {what} | {most} | {' '.join(f'`{variable(name)}`' for name in names)} | {beyond} |\n" for what, most, names, beyond in ROWS
    )


def page(text: str) -> str:
    """`text` with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def named() -> frozenset[str]:
    """The settings that the table names."""
    known = {field.name for field in msgspec.structs.fields(Settings)}
    names = {name for _, _, settings, _ in ROWS for name in settings}
    assert names <= known
    return frozenset(names)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
