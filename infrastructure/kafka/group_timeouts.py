"""The timeouts of consumer groups, equal for every client."""

from typing import Final

SESSION_TIMEOUT_SECONDS: Final = 10
HEARTBEAT_INTERVAL_SECONDS: Final = 1
REBALANCE_TIMEOUT_SECONDS: Final = 8
REQUEST_TIMEOUT_SECONDS: Final = 12
MAX_POLL_INTERVAL_SECONDS: Final = 864_000  # with a small value, a member with an idle fetcher never rejoins
METADATA_MAX_AGE_SECONDS: Final = 10  # to find a topic that is created later
