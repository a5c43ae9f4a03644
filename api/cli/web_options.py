"""The options of the web layer, from the settings of the installation."""

from api.options import PredictionLimits, WebOptions
from infrastructure.configuration.settings import Settings, networks


def web_options(settings: Settings) -> WebOptions:
    return WebOptions(
        base_url=settings.base_url.rstrip("/"),
        cors_origins=settings.cors_origins,
        allowed_hosts=settings.allowed_hosts,
        trusted_proxies=networks(settings),
        access_ttl=settings.access_ttl,
        refresh_ttl=settings.refresh_idle_ttl,
        anonymous_body_max_bytes=settings.anonymous_body_max_bytes,
        anonymous_body_seconds=settings.anonymous_body_seconds,
        anonymous_bodies=settings.anonymous_bodies,
        anonymous_bodies_per_address=settings.anonymous_bodies_per_address,
        websockets=settings.websockets,
        websockets_per_account=settings.websockets_per_account,
        websocket_max_bytes=settings.websocket_max_bytes,
        anonymous_websockets=settings.anonymous_websockets,
        anonymous_websockets_per_address=settings.anonymous_websockets_per_address,
        upload_max_bytes=settings.upload_max_bytes,
        model_max_bytes=settings.model_max_bytes,
        registration=settings.registration_mode,
        verifies_email=settings.verifies_email,
        secure_cookies=settings.public_url.startswith("https://"),
        live_rows_per_second=settings.live_rows_per_second,
        predictions=PredictionLimits(max_images=settings.kserve_max_images),
    )
