"""The options and limits of the web layer."""

from ipaddress import IPv4Network, IPv6Network
from urllib.parse import urlsplit

import msgspec

from application.history.event_feed import MAX_BYTES


class AdmissionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Maximum number of requests in progress: `normal`, or `overloaded` after requests were rejected for longer than a burst lasts.

    `overloaded` gives the same throughput at a third of the latency. One place in `credentials_share` is reserved for requests with a
    credential. Under overload, `normal` is probed every `probe_interval_seconds`.
    """

    normal: int = 96
    overloaded: int = 32
    credentials_share: int = 3
    overloaded_after_seconds: float = 0.25  # of rejections
    recovered_after_seconds: float = 0.5  # without a rejection
    probe_interval_seconds: float = 30.0


class BodyTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Minimum speed of a request body: longest pause between two pieces, and average rate of a body that takes longer than that."""

    idle_seconds: float = 30.0
    min_bytes_per_second: int = 1024


class UploadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """An upload is checked and stored `piece_bytes` at a time. At most `concurrent_stores` requests wait for the blob store at once.

    A request that waits longer than `store_timeout_seconds` for its turn gets 503.
    """

    piece_bytes: int = 512 * 1024
    concurrent_stores: int = 32
    store_timeout_seconds: float = 5.0


class FeedLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of `GET /api/events`. While `max_waiting` requests wait for events, further requests are answered at once.

    Waiting requests also poll the log, in case a wake-up was lost.
    """

    max_waiting: int = 64
    max_page_bytes: int = MAX_BYTES  # a single larger event is still sent
    poll_interval_seconds: float = 1.0


class PredictionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of `POST /api/v2/models/NAME/infer`. Each request holds its images in memory, so that few are served at the same time.

    A request has at most `max_images`, whose bodies arrive within `body_seconds`. While a request is in progress, it takes about twice
    the size of its body in memory. A body that alone is larger than `max_body_bytes` is admitted while there is no other.
    """

    max_images: int = 16
    max_requests: int = 8  # at the same time; further ones get 503
    max_requests_per_account: int = 4
    max_body_bytes: int = 256 * 1024**2  # of the requests in progress together
    max_body_bytes_per_account: int = 128 * 1024**2
    body_seconds: float = 30.0


class LiveLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a live connection. A client that sends nothing for `max_silence_seconds` is disconnected."""

    max_messages_per_second: int = 20
    authenticate_timeout_seconds: float = 5.0
    send_timeout_seconds: float = 10.0
    poll_interval_seconds: float = 1.0  # in case a notification was lost
    session_check_interval_seconds: float = 5.0
    ping_interval_seconds: float = 20.0
    max_silence_seconds: float = 65.0
    events_per_page: int = 100


class WebOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of an installation that concern the web layer, and its limits."""

    base_url: str
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    access_ttl: int = 600
    refresh_ttl: int = 7 * 86400
    anonymous_body_max_bytes: int = 8192
    anonymous_body_seconds: float = 5.0
    anonymous_bodies: int = 512  # unfinished at the same time
    anonymous_bodies_per_address: int = 64
    websockets: int = 1000
    websockets_per_account: int = 100
    websocket_max_bytes: int = 64 * 1024
    anonymous_websockets: int = 256
    anonymous_websockets_per_address: int = 32
    upload_max_bytes: int = 64 * 1024**2
    model_max_bytes: int = 512 * 1024**2
    secure_cookies: bool = False
    registration: str = "open"
    verifies_email: bool = False
    equal_answer_seconds: float = 0.5  # how long the answer to a request for a mail takes at least
    preview_wait_seconds: float = 2.0  # for the inspection of an image
    max_preview_waits: int = 64  # concurrent requests; further ones are answered without waiting
    exports_per_account: int = 2  # in progress
    visible_timeout_seconds: float = 2.0  # how long the response to a command waits for the read models
    default_model: str = "pbc8"
    live_rows_per_second: int = 2000
    admission: AdmissionLimits = AdmissionLimits()
    body_timeouts: BodyTimeouts = BodyTimeouts()
    uploads: UploadLimits = UploadLimits()
    feed: FeedLimits = FeedLimits()
    live: LiveLimits = LiveLimits()
    predictions: PredictionLimits = PredictionLimits()

    @property
    def origin(self) -> str:
        """Scheme and host of `base_url`, as browsers send it."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def base_path(self) -> str:
        """The path of `base_url`, which a proxy removes before it passes a request on: "" or like "/bioscope"."""
        return urlsplit(self.base_url).path.rstrip("/")
