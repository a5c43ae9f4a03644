"""Limits of failed sign-ins. Successful ones do not count, and failures from elsewhere do not lock a user out.

Passwords are tried at sign-in, and where the current one is asked for; all tries of one account's password count together.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final
from uuid import UUID

import msgspec

from application.ports import KnownAddresses, PasswordRequester, RateLimit, RateLimiter
from domain.errors import Forbidden, NotAuthenticated
from domain.values import canonical

MINUTE_SECONDS: Final = 60
HOUR_SECONDS: Final = 3600
UNKNOWN_ACCOUNT: Final = UUID(int=0)  # looked up where there is no account, so that an unknown e-mail address costs as much as a known one
FAILURES: Final = (NotAuthenticated, Forbidden)


class SignInRates(msgspec.Struct, frozen=True, kw_only=True):
    """Failed tries that are taken: of one account from one address, of one account from all addresses unknown to it, of one address."""

    account_and_address_per_minute: int = 5
    account_per_hour: int = 100
    address_per_minute: int = 300
    registrations_per_hour: int = 120


class SignInLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`network` is what counts as one address: an IPv4 address, or the /64 of an IPv6 address."""

    limits: RateLimiter
    known_addresses: KnownAddresses
    rates: SignInRates = SignInRates()

    @contextmanager
    def password(self, email: str, network: str, account: Callable[[], UUID | None]) -> Iterator[PasswordRequester]:
        """Around one try of a password; whose it is: the account's, or a stranger's where the address is unknown to it.

        It counts from the start, so tries at the same time do not pass the limits together, and is given back unless it ends with
        NotAuthenticated or Forbidden. `account` finds the account of `email`.

        Raises TooMany before the try.
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
        """The right password came from there: failures from elsewhere do not count against it any more."""
        self.known_addresses.remember(user, network)

    def unknown_token(self, network: str) -> None:
        """Counts a refresh token that was refused. One that is right is never counted, nor refused for others. Raises TooMany."""
        self.limits.take(RateLimit(key=f"refresh/{network}", maximum=self.rates.address_per_minute, seconds=MINUTE_SECONDS))

    def registration(self, network: str) -> None:
        """Counts one, whatever comes of it: whether an e-mail address is taken cannot be asked more often than that. Raises TooMany."""
        self.limits.take(RateLimit(key=f"register/{network}", maximum=self.rates.registrations_per_hour, seconds=HOUR_SECONDS))

    def _of_address(self, network: str) -> RateLimit:
        return RateLimit(key=f"password/address/{network}", maximum=self.rates.address_per_minute, seconds=MINUTE_SECONDS)

    def _of_account_and_address(self, email: str, network: str) -> RateLimit:
        maximum = self.rates.account_and_address_per_minute
        return RateLimit(key=f"password/address/{network}/account/{canonical(email)}", maximum=maximum, seconds=MINUTE_SECONDS)

    def _of_account(self, email: str) -> RateLimit:
        return RateLimit(key=f"password/account/{canonical(email)}", maximum=self.rates.account_per_hour, seconds=HOUR_SECONDS)
