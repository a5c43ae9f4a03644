"""The mailer over Postgres and a real SMTP server: at least once, one process at a time, nothing skipped while the server is away."""

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from uuid import uuid4

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from application.mail.mail import MailDeferred, MailRefused, MailServerUnavailable
from application.mail.mails import MailWriter
from domain import registration, user
from domain.access import Role
from infrastructure.container import mailer as mailer_of
from infrastructure.eventstore.event_store import open_event_store
from infrastructure.mail.delivery import DEFERRALS, OUTDATED, MailDelivery
from infrastructure.mail.mailer import Mailer, MailerLimits
from infrastructure.mail.records import MailRecords
from infrastructure.mail.smtp import SmtpServer, SmtpTransport
from infrastructure.postgres.profiles import MAILER
from infrastructure.postgres.schema import migrate
from infrastructure.postgres.wake_ups import APPENDED, WakeUps
from infrastructure.security.mail_links import KeyedMailLinks
from infrastructure.security.process_keys import operator_keys
from projections.process.rebuilds import rebuild
from tests.given import actor, command
from tests.rigs.smtp_server import SmtpRig
from tests.rigs.waiting import wait_until

SENDER = Address("BioScopeAI", addr_spec="bioscope@lab.example.org")
ADMIN = actor(Role.ADMIN)
NAMES = {"username": "ada", "first_name": "Ada", "last_name": "Byron"}
FAST = MailerLimits(poll=0.2, gather=0.001, first_pause=0.02, longest_pause=0.1)
FAILURES = "select position, number, reason, attempts, next_attempt_at from ops.mail_failures order by position, number"


@pytest.fixture(scope="module")
def redis_url():
    return "redis://127.0.0.1:1/0"


@pytest.fixture
def broker_url():
    """Mails need neither Redis nor Kafka."""
    return "127.0.0.1:1"


@pytest.fixture
def events(settings):
    with open_event_store(settings) as log:
        yield log


@pytest.fixture
def connection(settings):
    with MAILER.connect(settings.postgres_url) as connection:
        yield connection


class Clock:
    """Begins now, and moves on as the test wants it to."""

    def __init__(self):
        self.now = datetime.now(UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


class Outbox:
    """A transport that keeps what is sent. `fails` are errors to raise, by recipient; `away` is raised for every mail."""

    def __init__(self):
        self.sent, self.fails, self.away = [], {}, None

    def send(self, mail):
        if self.away is not None:
            raise self.away
        if mail.to in self.fails:
            raise self.fails[mail.to]
        self.sent.append(mail)

    @property
    def recipients(self):
        return [mail.to for mail in self.sent]


@pytest.fixture
def outbox():
    return Outbox()


@pytest.fixture
def delivery(settings, events, connection, outbox, clock):
    """Makes a delivery that continues where the checkpoint is."""

    def make():
        writer = MailWriter(log=events, links=KeyedMailLinks(operator_keys(settings)), base_url="https://lab.example.org")
        return MailDelivery(
            events=events, writer=writer, transport=outbox, records=MailRecords(connection), count=outcomes.update, clock=clock
        )

    outcomes = Counter()
    return make


def register(log, name="ada", at=None):
    """The position of a registration with the address NAME@example.org."""
    stream = uuid4()
    wanted = NAMES | {"email": f"{name}@example.org"}
    event = registration.request(stream, **wanted, request_id=uuid4(), at=at or datetime.now(UTC))
    return log.append(command(ADMIN), event).position


def account(log, name="ada"):
    stream = uuid4()
    log.append(command(ADMIN), user.register(stream, email=f"{name}@example.org", **NAMES, by=ADMIN.id, at=datetime.now(UTC)))
    return stream


def change_email(log, stream, email):
    state = log.load(stream, user.evolve)
    return log.append(command(ADMIN), *user.change_profile(state, {"email": email}, by=stream, at=datetime.now(UTC))).position


def test_each_mail_is_sent_once_in_the_order_of_the_log(events, delivery, outbox, connection):
    for name in ("ada", "bob", "eve"):
        register(events, name)
    at_once = delivery()
    at_once.run()
    at_once.run()
    delivery().run()
    assert outbox.recipients == ["ada@example.org", "bob@example.org", "eve@example.org"]
    assert MailRecords(connection).position() == events.head()


def test_a_mail_whose_checkpoint_was_lost_is_repeated_with_the_same_id(events, delivery, outbox, connection):
    position = register(events)
    delivery().run()
    connection.execute("update ops.mail_checkpoint set position = %s", (position - 1,))
    delivery().run()
    first, again = outbox.sent
    assert first == again


def test_events_from_before_the_migration_cause_no_mail(owner_url, events, delivery, outbox):
    register(events)
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("drop table ops.mail_checkpoint, ops.mail_failures")
        owner.execute("delete from ops.migrations where number = 26")
        migrate(owner_url)
    delivery().run()
    assert outbox.sent == []
    register(events, "bob")
    delivery().run()
    assert outbox.recipients == ["bob@example.org"]


def test_a_rebuild_of_the_read_models_sends_nothing(settings, events, delivery, outbox):
    register(events)
    delivery().run()
    rebuild(settings, check=False)
    delivery().run()
    assert outbox.recipients == ["ada@example.org"]


def test_a_checkpoint_beyond_the_log_continues_with_new_events(events, delivery, outbox, connection):
    register(events)
    connection.execute("update ops.mail_checkpoint set position = 4711")
    delivery().run()
    assert outbox.sent == []
    register(events, "bob")
    delivery().run()
    assert outbox.recipients == ["bob@example.org"]


def test_a_recipient_that_is_refused_is_recorded_without_the_address_and_the_others_get_their_mails(events, delivery, outbox, connection):
    position = register(events, "ada")
    register(events, "bob")
    outbox.fails["ada@example.org"] = MailRefused("the server refuses the recipient with code 550")
    delivery().run()
    assert outbox.recipients == ["bob@example.org"]
    assert connection.execute(FAILURES).fetchall() == [(position, 1, "the server refuses the recipient with code 550", 1, None)]


def test_a_deferred_mail_is_tried_again_later_and_delays_no_other(events, delivery, outbox, connection, clock):
    register(events, "ada")
    register(events, "bob")
    outbox.fails["ada@example.org"] = MailDeferred("the server refuses the recipient with code 450")
    delivery().run()
    assert outbox.recipients == ["bob@example.org"]
    again = delivery()
    again.run()
    assert 0 < again.seconds_until_due() <= DEFERRALS[0].total_seconds()
    outbox.fails.clear()
    clock.now += DEFERRALS[0]
    again.run()
    assert outbox.recipients == ["bob@example.org", "ada@example.org"]
    assert connection.execute(FAILURES).fetchall() == []
    assert again.seconds_until_due() is None


def test_a_deferred_mail_whose_link_expires_meanwhile_is_not_sent(events, delivery, outbox, connection, clock):
    position = register(events)
    outbox.fails["ada@example.org"] = MailDeferred("later")
    delivery().run()
    outbox.fails.clear()
    clock.now += timedelta(minutes=31)
    delivery().run()
    assert outbox.sent == []
    assert connection.execute(FAILURES).fetchall() == [(position, 1, OUTDATED, 2, None)]


def test_a_mail_that_is_always_deferred_is_refused_in_the_end(events, delivery, outbox, connection, clock):
    stream = account(events)
    state = events.load(stream, user.evolve)
    notice = user.change_password(state, password_hash=b"hash", by=stream, at=clock.now)
    position = events.append(command(ADMIN), notice).position
    outbox.fails["ada@example.org"] = MailDeferred("later")
    for _ in DEFERRALS:
        delivery().run()
        clock.now += max(DEFERRALS)
    assert connection.execute(FAILURES).fetchone()[-1] is not None
    delivery().run()
    assert connection.execute(FAILURES).fetchall() == [(position, 1, "later", len(DEFERRALS) + 1, None)]


def test_only_the_mail_that_was_deferred_is_tried_again(events, delivery, outbox, clock):
    change_email(events, account(events), "new@example.org")
    outbox.fails["new@example.org"] = MailDeferred("later")
    delivery().run()
    outbox.fails.clear()
    clock.now += DEFERRALS[0]
    delivery().run()
    assert outbox.recipients == ["ada@example.org", "new@example.org"]


def test_nothing_is_skipped_while_the_server_is_away_and_the_reason_is_shown(events, delivery, outbox, connection):
    change_email(events, account(events), "new@example.org")
    register(events, "bob")
    working = delivery()
    outbox.fails["new@example.org"] = MailServerUnavailable("the SMTP server does not answer")
    for _ in range(3):
        with pytest.raises(MailServerUnavailable):
            working.run()
    assert connection.execute("select problem, problem_since <= now() from ops.mail_checkpoint").fetchone() == (
        "the SMTP server does not answer",
        True,
    )
    outbox.fails.clear()
    working.run()
    assert outbox.recipients == ["ada@example.org", "new@example.org", "bob@example.org"], "the first mail is not repeated"
    assert connection.execute("select problem, problem_since from ops.mail_checkpoint").fetchone() == ("", None)


def test_a_problem_is_over_when_a_deferred_mail_was_sent_or_nothing_is_due(events, delivery, outbox, connection, clock):
    register(events)
    outbox.fails["ada@example.org"] = MailDeferred("later")
    working = delivery()
    working.run()
    clock.now += DEFERRALS[0]
    outbox.fails["ada@example.org"] = MailServerUnavailable("the SMTP server does not answer")
    with pytest.raises(MailServerUnavailable):
        working.run()
    assert connection.execute("select problem from ops.mail_checkpoint").fetchone() == ("the SMTP server does not answer",)
    outbox.fails.clear()
    delivery().run()
    assert outbox.recipients == ["ada@example.org"]
    assert connection.execute("select problem from ops.mail_checkpoint").fetchone() == ("",)


def test_an_event_that_cannot_be_read_is_recorded_and_passed_over(events, delivery, outbox, connection, owner_url):
    position = register(events, "ada")
    register(events, "bob")
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("alter table es.events disable trigger all")
        owner.execute("update es.events set state = 'damaged' where notification_id = %s", (position,))
    delivery().run()
    assert outbox.recipients == ["bob@example.org"]
    assert connection.execute(FAILURES).fetchall() == [(position, 0, "the event cannot be read", 1, None)]


def test_a_long_log_without_mails_is_not_read_again(events, delivery, connection, monkeypatch):
    monkeypatch.setattr("infrastructure.mail.delivery.POSITIONS_PER_CHECKPOINT", 3)
    working = delivery()
    account(events, "ada")
    working.run()
    assert MailRecords(connection).position() == 0, "a checkpoint for each event would cost as much as the event"
    for name in ("bob", "eve"):
        account(events, name)
    working.run()
    assert MailRecords(connection).position() == events.head()


def test_a_long_log_is_read_in_parts(events, delivery, outbox, connection, monkeypatch):
    monkeypatch.setattr("infrastructure.mail.delivery.POSITIONS_PER_QUERY", 2)
    monkeypatch.setattr("infrastructure.mail.delivery.EVENTS_PER_BATCH", 1)
    for number in range(3):
        register(events, f"user{number}")
        for name in "abc":
            account(events, f"{name}{number}")
    delivery().run()
    assert outbox.recipients == ["user0@example.org", "user1@example.org", "user2@example.org"]


def test_a_delivery_stops_between_two_mails(events, delivery, outbox):
    for name in ("ada", "bob"):
        register(events, name)
    delivery().run(lambda: len(outbox.sent) == 1)
    assert outbox.recipients == ["ada@example.org"]
    delivery().run()
    assert outbox.recipients == ["ada@example.org", "bob@example.org"]


class Killed(Exception):
    """The process ends after the server has taken the mail."""


class Unreliable:
    """A transport with the given outcomes, one after the other; then all mails are taken."""

    def __init__(self, outcomes):
        self.outcomes, self.taken = list(outcomes), Counter()

    def send(self, mail):
        match self.outcomes.pop() if self.outcomes else "taken":
            case "away":
                raise MailServerUnavailable("away")
            case "deferred":
                raise MailDeferred("deferred")
            case "refused":
                raise MailRefused("refused")
            case outcome:
                self.taken[mail.id] += 1
                if outcome == "killed":
                    raise Killed


def deliver_all(make, clock):
    """Until nothing is due. After a kill, another process continues."""
    delivery = make()
    while True:
        try:
            delivery.run()
        except Killed:
            delivery = make()
        except MailServerUnavailable:
            clock.now += timedelta(seconds=1)
        else:
            if (seconds := delivery.seconds_until_due()) is None:
                return
            clock.now += timedelta(seconds=seconds)


@given(st.lists(st.sampled_from(["taken", "away", "deferred", "refused", "killed"]), max_size=12))
@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_each_mail_is_taken_or_refused_and_only_a_kill_repeats_mails(settings, events, connection, outcomes):
    clock, transport = Clock(), Unreliable(outcomes)
    begin = MailRecords(connection).head()
    change_email(events, account(events, str(uuid4())), f"{uuid4()}@example.org")
    for _ in range(3):
        register(events, str(uuid4()))
    writer = MailWriter(log=events, links=KeyedMailLinks(operator_keys(settings)), base_url="https://lab.example.org")
    deliver_all(
        lambda: MailDelivery(events=events, writer=writer, transport=transport, records=MailRecords(connection), clock=clock), clock
    )
    made = MailRecords(connection).events(begin, events.head(), 100)
    mails = {(event.position, mail.number): mail.id for event in made for mail in writer.mails(event, at=event.recorded_at)}
    rows = connection.execute("select position, number from ops.mail_failures where position > %s", (begin,)).fetchall()
    refused = {mails[row] for row in rows}
    assert len(mails) == 5
    assert transport.taken.keys() | refused == set(mails.values())
    repeated = transport.taken.total() - len(transport.taken)
    assert repeated + len(transport.taken.keys() & refused) <= 2 * outcomes.count("killed"), (
        "a kill repeats the mails of one event, which are two at most"
    )


# ---- the thread --------------------------------------------------------------------------------------------------------------------
@contextmanager
def running(settings, delivery_over, limits=FAST):
    mailer = Mailer(settings.postgres_url, delivery_over, limits=limits)
    mailer.start()
    try:
        yield mailer
    finally:
        mailer.stop()
        assert not mailer._thread.is_alive()


@pytest.fixture
def delivery_to(settings, events):
    """What a mailer needs to send to this transport."""

    def make(transport):
        writer = MailWriter(log=events, links=KeyedMailLinks(operator_keys(settings)), base_url="https://lab.example.org")
        return lambda connection: MailDelivery(events=events, writer=writer, transport=transport, records=MailRecords(connection))

    return make


def test_a_mailer_sends_what_was_appended_before_and_after_its_start(settings, events, delivery_to, outbox):
    register(events, "ada")
    with running(settings, delivery_to(outbox)):
        wait_until(lambda: outbox.recipients == ["ada@example.org"])
        register(events, "bob")
        wait_until(lambda: outbox.recipients == ["ada@example.org", "bob@example.org"])


def test_an_append_wakes_the_mailer(settings, events, delivery_to, outbox):
    """With pauses that are longer than the test, only a wake-up explains that the mail is sent."""
    with running(settings, delivery_to(outbox), FAST._replace(poll=600)):
        wait_until(lambda: _leads(settings))
        register(events)
        wakes = WakeUps(settings.postgres_url)
        wait_until(lambda: wakes.send(APPENDED) or outbox.sent)
        wakes.close()


def test_two_mailers_send_each_mail_once_and_the_second_continues_after_the_first(settings, events, delivery_to):
    first, second = Outbox(), Outbox()
    with running(settings, delivery_to(second)) as other:
        with running(settings, delivery_to(first)):
            for number in range(20):
                register(events, f"user{number}")
            wait_until(lambda: len(first.sent) + len(second.sent) == 20)
        register(events, "ada")
        wait_until(lambda: second.recipients[-1:] == ["ada@example.org"])
        assert other._thread.is_alive()
    assert Counter(first.recipients + second.recipients).most_common(1)[0][1] == 1


def test_a_mailer_survives_the_loss_of_its_connection(settings, owner_url, events, delivery_to, outbox):
    with running(settings, delivery_to(outbox)), psycopg.connect(owner_url, autocommit=True) as owner:
        for name in ("ada", "bob", "eve"):
            register(events, name)
            wait_until(lambda name=name: f"{name}@example.org" in outbox.recipients)
            owner.execute(
                "select pg_terminate_backend(l.pid) from pg_locks l where l.locktype = 'advisory' and l.objid = %s", (0x6D61696C,)
            )
    assert set(outbox.recipients) == {"ada@example.org", "bob@example.org", "eve@example.org"}


def test_mails_wait_for_a_server_that_comes_back(settings, events, delivery_to):
    with SmtpRig() as gone:
        pass
    transport = Switching(SmtpTransport(SmtpServer.at(gone.url), SENDER))
    with running(settings, delivery_to(transport)):
        register(events, "ada")
        register(events, "bob")
        wait_until(lambda: _problem(settings).endswith("cannot be used (Connection refused)"))
        with SmtpRig() as back:
            transport.to = SmtpTransport(SmtpServer.at(back.url), SENDER)
            wait_until(lambda: len(back.received) == 2)
            assert [str(message["To"]) for message in back.received] == ["ada@example.org", "bob@example.org"]
            wait_until(lambda: _problem(settings) == "")


class Switching:
    def __init__(self, to):
        self.to = to

    def send(self, mail):
        self.to.send(mail)


KILLED = """
import os, signal, time
from infrastructure.configuration.settings import load
from infrastructure.container import mailer
from infrastructure.eventstore.event_store import open_event_store
from infrastructure.mail.smtp import SmtpTransport
from infrastructure.security.process_keys import operator_keys

send = SmtpTransport.send
def send_and_die(self, mail):
    send(self, mail)
    os.kill(os.getpid(), signal.SIGKILL)
SmtpTransport.send = send_and_die
settings = load(os.environ)
with open_event_store(settings) as log:
    mailer(settings, log, operator_keys(settings)).start()
    time.sleep(60)
"""


def test_a_process_that_is_killed_between_sending_and_the_checkpoint_repeats_only_that_mail(settings, events):
    with SmtpRig() as rig:
        with_smtp = msgspec.structs.replace(settings, smtp_url=rig.url, port=8000)
        register(events, "ada")
        register(events, "bob")
        given = {"DATA": settings.data, "POSTGRES_URL": settings.postgres_url, "SMTP_URL": rig.url, "PORT": "8000"}
        environment = os.environ | {f"BIOSCOPE_{name}": str(value) for name, value in given.items()}
        killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, timeout=60, check=False)
        assert killed.returncode == -signal.SIGKILL
        wait_until(lambda: not _leads(settings))
        surviving = mailer_of(with_smtp, events, operator_keys(settings))
        surviving.start()
        try:
            wait_until(lambda: len(rig.received) == 3)
        finally:
            surviving.stop()
    first, again, other = rig.received
    assert bytes(first) == bytes(again)
    assert [str(message["To"]) for message in (again, other)] == ["ada@example.org", "bob@example.org"]


def _leads(settings):
    with psycopg.connect(settings.postgres_url) as connection:
        return connection.execute(
            "select exists (select from pg_locks where locktype = 'advisory' and objid = %s)", (0x6D61696C,)
        ).fetchone()[0]


def _problem(settings):
    with psycopg.connect(settings.postgres_url) as connection:
        return connection.execute("select problem from ops.mail_checkpoint").fetchone()[0]


@pytest.mark.parametrize("role", ["bioscope_api", "bioscope_app", "bioscope_relay", "bioscope_projector", "bioscope_inference"])
def test_only_the_api_and_commands_on_the_server_change_what_is_known_of_mails(postgres, database, role):
    allowed = role in {"bioscope_api", "bioscope_app"}
    with psycopg.connect(postgres.url(user=role, database=database), autocommit=True) as connection:
        for table in ("ops.mail_checkpoint", "ops.mail_failures"):
            for right in ("select", "update"):
                (has,) = connection.execute("select has_table_privilege(%s, %s)", (table, right)).fetchone()
                assert has is allowed, (table, right)
