"""The events that one account may see, sent to one client as messages. WebSockets and event streams share it.

Each subscription reads the read model `activity` after its own position, with the access of its account. Notifications only trigger a
read. So resuming is the normal case, nothing is queued, and a connection takes no more memory than one page.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from api.access_notes import Notes, notes_of, with_notes
from api.clock import utc_now
from api.live.messages import INTERNAL_ERROR, UNAUTHENTICATED, Authenticated, CaughtUp, CloseConnection, ServerMessage, event_message
from api.middleware.authentication import require_verified
from application.authentication import Credential, read_credential
from application.services import Claims
from domain.access import Actor, Scope, require_scope
from domain.errors import NotAuthenticated, TooMany, Unavailable, UpgradeNeeded
from projections import access, activity, classifications
from projections.engine import checkpoints

if TYPE_CHECKING:
    from api.live.hub import LiveHub

OUTDATED: Final = "this account needs a newer release of the server; try again after its upgrade"


class EventPage(NamedTuple):
    """The next events to send, with the progress of their jobs."""

    feed: activity.ActivityPage
    progress: Mapping[UUID, classifications.Progress]

    @property
    def visited(self) -> int:
        return self.feed.visited + len(self.progress)


class Subscription:
    """The events that a client subscribed to. `position` is that of the last event sent.

    `unchecked` are datasets of which it is not known yet whether the account may see them.
    """

    def __init__(self, position: int, datasets: frozenset[UUID] | None) -> None:
        self.position, self.datasets, self.unchecked = position, datasets, datasets or frozenset()
        self.is_new = True


class LiveFeed:
    """One signed-in client and its subscription. `send` sends it one message; it may raise CloseConnection.

    `scope` is that of the connection. `send_updates`, `watch_notifications` and `recheck_session` run concurrently until the connection
    ends.
    """

    def __init__(self, hub: "LiveHub", send: Callable[[ServerMessage], Awaitable[None]], scope: Any) -> None:
        self._hub, self._send = hub, send
        self._services, self._identities, self._limits = hub.services, hub.identities, hub.options.live
        self._scope, self._network = scope, hub.network_of(scope)
        self._credential: Credential | None = None
        self._expires_at: datetime | None = None
        self._actor: Actor | None = None
        self._subscription: Subscription | None = None
        self._wake_up = asyncio.Event()
        self.sent_events = 0

    @property
    def account_id(self) -> UUID | None:
        """Of the account or service; None before it has signed in."""
        return self._actor.id if self._actor else None

    @property
    def position(self) -> int | None:
        """The position of the last event sent, after which the client can resume."""
        return self._subscription.position if self._subscription else None

    @property
    def actor(self) -> Actor:
        """The signed-in account or service."""
        assert self._actor is not None
        return self._actor

    # ---- authentication ----
    async def sign_in(self, token: str) -> Authenticated:
        """Use the feed with the rights of `token`, also instead of an earlier one. Returns the message that confirms it.

        Raises NotAuthenticated, Forbidden for a service without the scope, UpgradeNeeded, Unavailable.
        """
        notes = notes_of(self._scope)
        notes.actor = None
        credential = read_credential(token, self._services.access_tokens, at=utc_now())
        identity = await asyncio.to_thread(self._identities.authenticate, credential, network=self._network)
        notes.actor = identity.actor
        if identity.actor.uses_key:
            require_scope(identity.actor, Scope.EVENTS_READ)
        require_verified(identity.actor)
        if self._actor is not None and self._actor.id != identity.actor.id:
            raise NotAuthenticated("the token belongs to another account")
        self._credential, self._actor = credential, identity.actor
        self._expires_at = credential.expires_at if isinstance(credential, Claims) else identity.expires_at
        assert self._expires_at is not None
        return Authenticated(user=identity.actor.id, expires_at=self._expires_at)

    async def recheck_session(self) -> None:
        """Raise CloseConnection when the token expires, the session ends, or the account is disabled."""
        while True:
            await asyncio.sleep(self._limits.session_check_interval_seconds)
            credential = self._credential
            assert credential is not None
            assert self._expires_at is not None
            if utc_now() >= self._expires_at:
                raise CloseConnection(UNAUTHENTICATED, "the token has expired")
            try:
                identity = await asyncio.to_thread(self._identities.authenticate, credential, network=self._network)
            except (NotAuthenticated, TooMany) as error:
                raise CloseConnection(UNAUTHENTICATED, error.detail) from None
            except UpgradeNeeded:  # this release does not know an event of the account, which may be closed
                raise CloseConnection(INTERNAL_ERROR, OUTDATED) from None
            except Unavailable:
                continue  # no events can be read either
            self._actor = identity.actor

    # ---- events ----
    async def subscribe(self, after: int | None, datasets: frozenset[UUID] | None) -> None:
        """Send events after position `after` (None: from now on), of `datasets` if given, instead of an earlier subscription."""
        self._subscription = Subscription(await self._current_position() if after is None else after, datasets)
        self._wake_up.set()

    async def _current_position(self) -> int:
        """The position of the read models, or an older one if it cannot be queried now. Then earlier events are sent too."""
        if self._hub.budgets.try_query(self.actor.id):
            with suppress(Unavailable):
                return await checkpoints.position(self._services.live_reads)
        return self._services.read_position.position

    async def watch_notifications(self) -> None:
        """Wake `send_updates` after each change of the read models."""
        async with self._services.notifications.subscribe() as notifications:
            while True:
                was_notified = await notifications.wait(self._limits.poll_interval_seconds)
                subscription = self._subscription
                if was_notified or (subscription is not None and self._services.read_position.position > subscription.position):
                    self._wake_up.set()

    async def send_updates(self) -> None:
        """Send the events of the subscription as they happen. Raises what `send` raises."""
        while True:
            await self._wake_up.wait()
            self._wake_up.clear()
            if (subscription := self._subscription) is not None:
                try:
                    await self._catch_up(subscription)
                except Unavailable:
                    await asyncio.sleep(self._limits.poll_interval_seconds)
                    self._wake_up.set()

    async def _catch_up(self, subscription: Subscription) -> None:
        """Send all events up to now, page by page. Stop at once when another subscription replaces this one."""
        await self._record_missing(subscription)
        must_report, has_more = subscription.is_new, True
        while has_more and subscription is self._subscription:
            page = await self._hub.budgets.read(self.actor.id, partial(self._next_page, subscription))
            if subscription is not self._subscription:
                return
            await self._send_page(page)
            subscription.position, has_more = page.feed.position, page.feed.more
            must_report = must_report or bool(page.feed.items)
        if must_report and subscription is self._subscription:
            subscription.is_new = False
            await self._send(CaughtUp(position=subscription.position))

    async def _record_missing(self, subscription: Subscription) -> None:
        """Record those datasets that the account may not see, like requests that were answered 404. They may become visible later."""
        if not (wanted := subscription.unchecked):
            return
        found = await self._hub.budgets.read(self.actor.id, lambda: access.visible(self._services.live_reads, self.actor, wanted))
        subscription.unchecked = frozenset()
        for dataset in sorted(wanted - found.datasets):
            notes = Notes(actor=self.actor, missing=("dataset", dataset))  # those of the connection change while it verifies another token
            self._hub.accesses.record(with_notes(self._scope, notes), HTTPStatus.NOT_FOUND)

    async def _next_page(self, subscription: Subscription) -> EventPage:
        """The next page, with the present access and position."""
        reads, actor = self._services.live_reads, self.actor
        feed = await activity.after(
            reads,
            actor,
            position=subscription.position,
            limit=self._limits.events_per_page,
            datasets=subscription.datasets,
            head=self._services.read_position.position,
        )
        jobs = {job for item in feed.items if (job := activity.job_of(item)) is not None}
        return EventPage(feed, await classifications.progress(reads, actor, jobs) if jobs else {})

    async def _send_page(self, page: EventPage) -> None:
        for item in page.feed.items:
            job = activity.job_of(item)
            await self._send(event_message(item, page.progress.get(job) if job else None))
        self.sent_events += len(page.feed.items)
