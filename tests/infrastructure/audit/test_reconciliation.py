"""Reconciliation of claims, passwords and data keys with the log: concurrent commands are no discrepancy."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from application import accounts, bootstrap, devices, invitations, registrations
from application.accounts import register
from application.limits.sign_in_attempts import SignInLimits
from domain.access import Role
from infrastructure.audit.reconciliation import Reconciler, discrepancies, named_subjects
from infrastructure.audit.side_tables import TableAudit
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.security.bootstrap_tokens import KeyedBootstrapTokens
from infrastructure.security.keys import KeyRing, MissingKey, RootKey
from infrastructure.security.mail_links import KeyedMailLinks
from infrastructure.security.passwords import Argon2Passwords
from infrastructure.security.rate_limits import LocalRateLimiter
from infrastructure.security.refresh_tokens import PostgresRefreshTokens
from tests.given import actor, command
from tests.rigs.links import Links
from tests.twins.known_addresses import MemoryKnownAddresses
from tests.twins.last_seen import MemoryLastSeen

ADMIN = actor(Role.ADMIN)
PASSWORDS = Argon2Passwords("embedded")


@pytest.fixture
def tokens(settings):
    tokens = PostgresRefreshTokens(settings.postgres_url, RootKey.read(settings.root_key_path), idle_seconds=600, absolute_seconds=600)
    yield tokens
    tokens.close()


def account(log, name, *, password="correct horse battery 9", role=Role.VIEWER):
    names = {"email": f"{name}@example.org", "username": name, "first_name": "Ada", "last_name": "Byron"}
    return register(**names, password=password, role=role, command=command(), log=log, passwords=PASSWORDS).id


def moved(log, user, email, tokens):
    accounts.update(user, profile={"email": email}, command=command(ADMIN), log=log, passwords=PASSWORDS, tokens=tokens)


@contextmanager
def at_the_same_time(work):
    """`work` is done again and again, with the numbers from 1 on, while the block runs."""
    enough = threading.Event()

    def run():
        number = 0
        while not enough.is_set():
            work(number := number + 1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def links_over(log, settings):
    keys = RootKey.read(settings.root_key_path)
    limits = SignInLimits(limits=LocalRateLimiter(), known_addresses=MemoryKnownAddresses())
    return Links(SimpleNamespace(log=log, passwords=PASSWORDS, sign_in_limits=limits, mail_links=KeyedMailLinks(keys)))


def audited(log):
    audit = TableAudit(log)
    after = 0
    while batch := log.read(after, 3):
        audit.take(batch)
        after = batch[-1].position
    return list(audit.finish())


def test_registrations_invitations_and_the_first_administrator_are_in_order(log, tokens, settings):
    links, password = links_over(log, settings), "correct horse battery 9"
    limits = {"passwords": PASSWORDS, "tokens": tokens, "sign_in_limits": links.sign_in_limits, "links": links.links}
    for _ in range(2):  # the second one takes the claim of the first
        links.of_registration("pending@example.org", password=password)
    verified = links.of_registration("verified@example.org", password=password, username="verified")
    registrations.verify(token=verified, password=password, network="192.0.2.1", command=links.command(), log=log, **limits)
    for name in ("open", "withdrawn", "accepted"):
        links.of_invitation(f"{name}@example.org")
    invitations.withdraw(log.claimed("invitation", "withdrawn@example.org"), command=command(ADMIN), log=log)
    names = {"first_name": "Ada", "last_name": "Byron", "password": password, "network": "192.0.2.1"}
    token = links.of_stream(log.claimed("invitation", "accepted@example.org"))
    ports = {"links": links.links, "passwords": PASSWORDS, "sign_in_limits": links.sign_in_limits}
    invitations.accept(token=token, username="ada", **names, command=links.command(), log=log, **ports)
    bootstrap_tokens = KeyedBootstrapTokens(RootKey.read(settings.root_key_path))
    first = {"email": "root@example.org", "username": "root", "token": bootstrap_tokens.token(), "bootstrap_tokens": bootstrap_tokens}
    bootstrap.create_first_administrator(**first, **names, command=links.command(), log=log, passwords=PASSWORDS)
    assert list(discrepancies(log, named_subjects(log))) == []
    assert audited(log) == []


def test_registered_moved_deleted_and_erased_accounts_and_devices_are_in_order(log, tokens):
    kept, renamed, gone, erased = (account(log, name) for name in ("kept", "renamed", "gone", "erased"))
    moved(log, renamed, "other@example.org", tokens)
    accounts.delete(gone, command=command(ADMIN), log=log, tokens=tokens)
    accounts.erase(erased, command=command(ADMIN), log=log, tokens=tokens)
    scope, removed = (
        devices.register(name=name, hostname=name, location=None, firmware_version=None, command=command(ADMIN), log=log).id
        for name in ("scope", "removed")
    )
    devices.describe(scope, {"hostname": "scope-2"}, command=command(ADMIN), log=log)
    devices.report(scope, online=True, command=command(ADMIN), log=log, last_seen=MemoryLastSeen())
    devices.remove(removed, command=command(ADMIN), log=log, last_seen=MemoryLastSeen())
    assert named_subjects(log) == {kept, renamed, scope}
    assert list(discrepancies(log, [kept, renamed, gone, erased, scope, removed])) == []
    assert audited(log) == []


def test_what_people_do_meanwhile_is_no_discrepancy(log, tokens):
    user = account(log, "ada")
    with at_the_same_time(lambda number: moved(log, user, f"ada-{number}@example.org", tokens)):
        found = [discrepancy for _ in range(100) for discrepancy in discrepancies(log, [user])]
    assert found == []


def test_it_asks_for_the_keys_that_it_needs(log, settings):
    user = account(log, "ada")
    without_keys = RecorderEventStore(PostgresRecorder(settings.postgres_url, KeyRing({})), KeyRing({}))
    with pytest.raises(MissingKey):
        list(discrepancies(without_keys, [user]))
    without_keys.close()


def test_the_reconciler_goes_on_after_a_failure(log):
    reports, again = [], threading.Event()

    def report(found):
        reports.append(found)
        if len(reports) == 1:
            raise RuntimeError("the first report fails")
        again.set()

    reconciler = Reconciler(log, seconds=0.01, report=report)
    reconciler.start()
    assert again.wait(10)
    reconciler.stop()


def test_the_reconciler_reports_each_time_and_stops_at_once(log):
    reports, twice = [], threading.Event()

    def report(found):
        reports.append(found)
        if len(reports) == 2:
            twice.set()

    user = account(log, "ada")
    reconciler = Reconciler(log, seconds=0.01, report=report)
    reconciler.start()
    assert twice.wait(10)
    reconciler.stop()
    seen = len(reports)
    assert user in named_subjects(log)
    assert reports[0] == []
    assert len(reports) == seen
