"""Rate limits for failed sign-ins. Successful ones do not count, and failures from other networks do not lock a user out.

A password is verified at sign-in and when a user changes it. All attempts at one account's password count together.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final
from uuid import UUID

import msgspec

from application.ports import KnownAddresses, PasswordRequester, RateLimit, RateLimiter
from domain.email_address import mailbox
from domain.errors import Forbidden, NotAuthenticated, Taken, TooMany
from domain.links import LinkPurpose

MINUTE_SECONDS: Final = 60
HOUR_SECONDS: Final = 3600
UNKNOWN_ACCOUNT: Final = UUID(int=0)  # looked up for an unknown e-mail address, so that it takes as long as a known one
FAILURES: Final = (NotAuthenticated, Forbidden)


class SignInRates(msgspec.Struct, frozen=True, kw_only=True):
    """Maximum failures: per account and address, per account from all addresses unknown to it, and per address; registrations and mails.

    Mails to one e-mail address are limited per network that requests them, and for all networks unknown to its account together: password
    resets, and all others. User names are those that a link is refused.
    """

    account_and_address_per_minute: int = 5
    account_per_hour: int = 100
    address_per_minute: int = 300
    registrations_per_hour: int = 120
    mails_per_hour: int = 5
    mails_per_hour_for_strangers: int = 20
    user_names_per_hour: int = 10


class SignInLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Counts attempts at passwords, refresh tokens and registrations. `network` is an IPv4 address, or the /64 of an IPv6 address."""

    limits: RateLimiter
    known_addresses: KnownAddresses
    rates: SignInRates = SignInRates()

    @contextmanager
    def password(self, email: str, network: str, account: Callable[[], UUID | None]) -> Iterator[PasswordRequester]:
        """Count the password attempt in the block, and give its requester: the account, or a stranger if the network is new to it.

        The attempt counts from the start, so that concurrent attempts cannot exceed the limits. It is refunded unless the block raises
        NotAuthenticated or Forbidden. `account` finds the account of `email`. Raises TooMany before the block.
        """
        with ExitStack() as refunds:
            refunds.callback(self.limits.take(self._of_address(network), self._of_account_and_address(email, network)))
            user = account() or UNKNOWN_ACCOUNT
            is_stranger = not self.known_addresses.knows(user, network)
            if is_stranger:
                refunds.callback(self.limits.take(self._of_account(email)))
            try:
                yield PasswordRequester(network if is_stranger else str(user), is_stranger)
            except FAILURES:
                refunds.pop_all()
                raise

    def remember(self, user: UUID, network: str) -> None:
        """Store that the correct password came from this network. Failures from other networks then no longer block it."""
        self.known_addresses.remember(user, network)

    def unknown_token(self, network: str) -> None:
        """Count a refused refresh token. Valid tokens are neither counted nor affected by the limit. Raises TooMany."""
        self.limits.take(RateLimit(key=f"refresh/{network}", maximum=self.rates.address_per_minute, seconds=MINUTE_SECONDS))

    def unknown_key(self, network: str) -> None:
        """Count a refused API key. Valid keys are neither counted nor affected by the limit. Raises TooMany."""
        self.limits.take(RateLimit(key=f"key/{network}", maximum=self.rates.address_per_minute, seconds=MINUTE_SECONDS))

    def registration(self, network: str) -> None:
        """Count one registration, whatever its result, since each one reveals whether an e-mail address is in use. Raises TooMany."""
        self.limits.take(self._of_registrations(network))

    @contextmanager
    def user_name(self, link: UUID, network: str) -> Iterator[None]:
        """Count a user name that the block refuses, for the registration or invitation `link` and with registrations of the network.

        The name counts from the start, so that concurrent requests cannot exceed the limits. It is refunded unless the block raises Taken
        for it. Raises TooMany before the block.
        """
        of_link = RateLimit(key=f"username/{link}", maximum=self.rates.user_names_per_hour, seconds=HOUR_SECONDS)
        with ExitStack() as refunds:
            refunds.callback(self.limits.take(of_link, self._of_registrations(network)))
            try:
                yield
            except Taken as taken:
                if taken.scope == "username":
                    refunds.pop_all()
                raise

    def mail(self, email: str, network: str) -> None:
        """Count one request for a mail to `email`, whether or not the address is known here. Raises TooMany.

        Requests from one network count with registrations. `may_send` decides on the mail.
        """
        self.limits.take(self._of_registrations(network), self._of_mails(email, network))

    def may_send(self, purpose: LinkPurpose, email: str, network: str, account: Callable[[], UUID | None]) -> bool:
        """Whether a request that was counted sends its mail. False if strangers have requested too many mails to `email`.

        Password resets count on their own. So there is no other request with which strangers can use them up.

        `account` finds the account of `email`. A network from which it signed in is not a stranger's, so that strangers cannot use up
        its mails. The requester must not see the result: it would show whether the network is known. For the same reason, each request
        counts as that of a stranger: `mail_to_new_address` shows when the limit is reached.
        """
        is_known = self.known_addresses.knows(account() or UNKNOWN_ACCOUNT, network)
        try:
            self.limits.take(self._of_mails_for_strangers(email, is_reset=purpose is LinkPurpose.RESET_PASSWORD))
        except TooMany:
            return is_known
        return True

    def mail_to_new_address(self, email: str, network: str) -> None:
        """As `mail` and `may_send`, for an address that the requester has not proved yet. Raises TooMany for either limit."""
        self.limits.take(
            self._of_registrations(network), self._of_mails(email, network), self._of_mails_for_strangers(email, is_reset=False)
        )

    def _of_registrations(self, network: str) -> RateLimit:
        return RateLimit(key=f"register/{network}", maximum=self.rates.registrations_per_hour, seconds=HOUR_SECONDS)

    def _of_mails(self, email: str, network: str) -> RateLimit:
        return RateLimit(key=f"mail/{mailbox(email)}/{network}", maximum=self.rates.mails_per_hour, seconds=HOUR_SECONDS)

    def _of_mails_for_strangers(self, email: str, *, is_reset: bool) -> RateLimit:
        return RateLimit(
            key=f"{'reset' if is_reset else 'mail'}/{mailbox(email)}",
            maximum=self.rates.mails_per_hour_for_strangers,
            seconds=HOUR_SECONDS,
        )

    def _of_address(self, network: str) -> RateLimit:
        return RateLimit(key=f"password/address/{network}", maximum=self.rates.address_per_minute, seconds=MINUTE_SECONDS)

    def _of_account_and_address(self, email: str, network: str) -> RateLimit:
        maximum = self.rates.account_and_address_per_minute
        return RateLimit(key=f"password/address/{network}/account/{mailbox(email)}", maximum=maximum, seconds=MINUTE_SECONDS)

    def _of_account(self, email: str) -> RateLimit:
        return RateLimit(key=f"password/account/{mailbox(email)}", maximum=self.rates.account_per_hour, seconds=HOUR_SECONDS)
