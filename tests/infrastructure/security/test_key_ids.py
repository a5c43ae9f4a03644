"""Key ids: new data names its key, old data stays readable, and several keys are valid at a time."""

import base64
from datetime import UTC, datetime
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.ports import ReleasedClaim, UniqueClaim
from application.signed_downloads import LocalAddress
from domain.access import Role
from domain.dataset import DatasetCreated
from domain.errors import Forbidden, KeyReused, NotAuthenticated, Taken
from domain.events import SEALED_PREFIX, WITHHELD
from infrastructure.audit.chain_verification import SignedHead
from infrastructure.eventstore.codec import Codec, EncodedEvent, Undecodable
from infrastructure.eventstore.event_store import RecorderEventStore
from infrastructure.eventstore.recorder import PostgresRecorder
from infrastructure.kafka.cloud_events import RecordKey
from infrastructure.security.access_tokens import SignedAccessTokens
from infrastructure.security.key_ring import NO_KEYS, Key
from infrastructure.security.keyed_digest import ClaimDigests, KeyedDigest
from infrastructure.security.keys import DataKeys, KeyRing, MissingKey, Purpose, RootKey, WrongRootKey
from infrastructure.security.signed_urls import seal, unseal
from tests.given import NOW, actor, command
from tests.twins.event_store import MemoryRecorder

ROOT, OTHER = RootKey(bytes(range(32))), RootKey(bytes(range(1, 33)))
STREAM, SOMEBODY = UUID(int=1), UUID(int=2)
ADDRESS = LocalAddress(
    image_id=STREAM, holder_id=SOMEBODY, is_service=False, folder="", inline=True, ends=2_000_000_000, label=b"cell.jpg."
)
LINK = {"now": lambda: 1_900_000_000}
LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# Written under ROOT by the release before keys had ids.
WRAPPED = base64.b64decode("UIJ+6qkdfaxPp9YIcE6GDvzbENyWbgIZj91OkiP5j/BLULrQ0A8fijyKPb3BELegMAiivRTMCO/rqIyh")
STORED = EncodedEvent(
    STREAM,
    1,
    "DatasetCreated",
    1,
    UUID("c9843eb8-ccdf-4479-a630-8c8b48b08a97"),
    b'{"at":"2026-01-02T03:04:05Z","by":"00000000-0000-0000-0000-000000000002",'
    b'"name":"sealed:1:z2nFnO252gJmajlCiIFBV/LF1WxjVdkVi/03JUN5SGm2o5Diepug25k=",'
    b'"description":null,"owner_id":"00000000-0000-0000-0000-000000000002"}',
)
ADDRESS_BEFORE = (
    "Lgk95aFsm3q6epIPZpb7Xfj51QiJd3vH_4p8uJqzm6WFpG5hbWXZQGFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYW"
    "FhYWFhYWGoZmlsZW5hbWWoY2VsbC5qcGeqbWVkaWFfdHlwZappbWFnZS9qcGVnpmlubGluZcOkZW5kc853NZQA"
)
EMAIL_CLAIM = bytes.fromhex("c5a64af5cf57363aee23acdf8bc583368bf7a4d27d19ce0c65ae0f9583dec478")
REQUEST_DIGEST = bytes.fromhex("1bdb14d2b1ee09a6dacc7e891ed5d3cc31ea52495272046036404b6f73909b6f")
HEAD = SignedHead(
    position=7,
    hash="ab" * 32,
    signed_at=LONG_AGO,
    signature="7CJ0b7MFBd1L92YK5GgCN6jzZMXtW/XUhNdYGrG7SiEMCGOzWRTWo/M7QRtXAJQngVt2Enf//Mbb7yZLKJU0Bg==",
)
ACCESS_TOKEN = (
    "eyJhbGciOiJFZERTQSIsImtpZCI6IjExZjYyOTlmN2Q5MzliNDEiLCJ0eXAiOiJhdCtqd3QifQ.eyJhdWQiOiJiaW9zY29wZSIsImlzcyI6ImJpb3Njb3BlIiwiaWF0IjoxNz"
    "Y3MzIzMDQ1LCJuYmYiOjE3NjczMjMwNDUsImV4cCI6Mjc2NzMyMzA0NSwianRpIjoiMmNlZDliNDctNDU0Mi00NTcxLTgzZTEtNjkwYTg2MjJjYzE3Iiwic3ViIjoiMDAwMDAw"
    "MDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAzIiwic2lkIjoiMDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDA0Iiwicm9sZSI6ImFkbWluIiwicm9sZXMiOi"
    "JhZG1pbiJ9.TdIRdKDEJVshkMCcUwtVQH3o4luronpOzMzT8ekUJ_imOgcVOPIa8-RvHJw1lX1AJ4k49ShCB41p0BHG57BqAA"
)


def rotated(*purposes):
    """A key ring in which the keys of OTHER replaced those of ROOT."""
    return KeyRing({purpose: [*OTHER.all(purpose), *ROOT.all(purpose)] for purpose in purposes})


def data_keys(keys, wrapped):
    return DataKeys(keys, lambda wanted: dict.fromkeys(wanted, wrapped))


def codec_over(keys, wrapped):
    return Codec(data_keys(keys, wrapped), lambda _: ())


def created(name="Bone marrow"):
    return DatasetCreated(
        originator_id=STREAM, originator_version=1, at=LONG_AGO, by=SOMEBODY, name=name, description=None, owner_id=SOMEBODY
    )


# ---- what was written before keys had ids --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("purpose_keys", [ROOT, rotated(Purpose.DATA_KEYS)], ids=["the only key", "after a rotation"])
def test_data_wrapped_and_sealed_before_is_read(purpose_keys):
    assert codec_over(purpose_keys, WRAPPED).decode(STORED) == created()


@pytest.mark.parametrize("with_key_id", [False, True])
def test_an_address_of_an_earlier_release_is_refused_since_it_could_not_be_revoked(with_key_id):
    token = ADDRESS_BEFORE
    if with_key_id:
        signed = base64.urlsafe_b64decode(ADDRESS_BEFORE + "=" * (-len(ADDRESS_BEFORE) % 4))[32:]
        digest = KeyedDigest(ROOT, Purpose.SIGNED_URLS).of(signed)
        token = "2." + base64.urlsafe_b64encode(digest + signed).decode().rstrip("=")
    with pytest.raises(Forbidden, match="is not valid"):
        unseal(ROOT, token, **LINK)


def test_a_head_and_a_token_signed_before_are_genuine():
    assert HEAD.genuine(ROOT.public("heads"))
    assert HEAD.genuine([*OTHER.public("heads"), *ROOT.public("heads")])
    assert not HEAD.genuine(OTHER.public("heads"))
    claims = SignedAccessTokens(ROOT, ttl=60).verify(ACCESS_TOKEN, at=LONG_AGO)
    assert (claims.subject, claims.role) == (UUID(int=3), Role.ADMIN)


def test_the_name_of_the_installation_stays():
    assert RecordKey(ROOT).source == b"urn:uuid:02f131af-5e49-a671-feb3-1ed92cef1818"
    assert RecordKey(rotated(Purpose.EVENT_SOURCE, Purpose.RELAY_RECORDS)).source == RecordKey(ROOT).source


def test_records_that_were_authenticated_with_a_replaced_key_are_still_believed():
    row_hash = b"h" * 32
    before, after = RecordKey(ROOT), RecordKey(rotated(Purpose.EVENT_SOURCE, Purpose.RELAY_RECORDS))
    assert after.verifies(before.mac(row_hash), row_hash)
    assert not before.verifies(after.mac(row_hash), row_hash)
    assert not after.verifies(before.mac(row_hash), bytes(32))


@pytest.fixture(params=["memory", "postgres"])
def log(request):
    recorder = MemoryRecorder(ROOT) if request.param == "memory" else PostgresRecorder(request.getfixturevalue("app_url"), ROOT)
    log = RecorderEventStore(recorder, ROOT)
    log.request = request
    yield log
    log.close()


def claim_before(log, stream):
    """A claim as it was stored before keys had ids."""
    if isinstance(log.recorder, MemoryRecorder):
        log.recorder._claims["email", EMAIL_CLAIM] = stream
    else:
        with psycopg.connect(log.request.getfixturevalue("owner_url")) as owner:
            owner.execute("insert into es.claims values ('email', %s, %s)", (EMAIL_CLAIM, stream))


def append(log, stream, *, version=1, claims=(), releases=()):
    event = msgspec.structs.replace(created(), originator_id=stream, originator_version=version)
    return log.append(command(actor(Role.ADMIN)), event, claims=claims, releases=releases)


def test_a_name_claimed_before_is_found_and_belongs_to_nobody_else(log):
    holder, other = uuid4(), uuid4()
    claim_before(log, holder)
    assert log.claimed("email", "ada@example.org") == holder
    with pytest.raises(Taken):
        append(log, other, claims=[UniqueClaim(scope="email", value="Ada@example.org", stream=other)])
    append(log, holder, claims=[UniqueClaim(scope="email", value="ada@example.org", stream=holder)])
    assert log.claimed("email", "ada@example.org") == holder


def test_a_name_claimed_before_is_released(log):
    holder, other = uuid4(), uuid4()
    claim_before(log, holder)
    append(log, holder, releases=[ReleasedClaim(scope="email", value="ada@example.org", stream=holder)])
    append(log, other, claims=[UniqueClaim(scope="email", value="ada@example.org", stream=other)])
    assert log.claimed("email", "ada@example.org") == other


def test_a_request_stored_before_is_recognised_and_another_is_not(log):
    before = command(actor(Role.ADMIN), digest=REQUEST_DIGEST)
    log.append(before, created())
    digest, *earlier = KeyedDigest(ROOT, Purpose.REQUEST_DIGESTS).forms(b"body")
    assert log.outcome(msgspec.structs.replace(before, digest=digest, earlier_digests=tuple(earlier))).replayed
    digest, *earlier = KeyedDigest(ROOT, Purpose.REQUEST_DIGESTS).forms(b"another body")
    with pytest.raises(KeyReused):
        log.outcome(msgspec.structs.replace(before, digest=digest, earlier_digests=tuple(earlier)))


# ---- what is written now --------------------------------------------------------------------------------------------------------------
@given(st.binary(max_size=100), st.binary(max_size=100))
def test_a_digest_begins_with_the_id_of_its_key_and_fits_its_value_alone(value, other):
    digests = KeyedDigest(ROOT, Purpose.REQUEST_DIGESTS)
    digest = digests.of(value)
    assert digest.startswith(ROOT.newest(Purpose.REQUEST_DIGESTS).id)
    assert digests.matches(digest, value)
    assert digests.matches(digest, other) == (value == other)


@given(st.data())
def test_what_is_sealed_and_wrapped_names_its_keys_and_opens_with_them_alone(data):
    subject, text = data.draw(st.uuids()), data.draw(st.text(st.characters(codec="utf-8"), min_size=1))
    wrapped = data_keys(ROOT, b"").create(subject)[1]
    assert wrapped[1:5] == ROOT.newest(Purpose.DATA_KEYS).id
    key = data_keys(ROOT, wrapped).get(subject)
    sealed = key.seal(text.encode(), b"here")
    assert data_keys(rotated(Purpose.DATA_KEYS), wrapped).get(subject).open(sealed, b"here") == text.encode()
    position = data.draw(st.integers(0, len(wrapped) - 1))
    damaged = bytes(byte ^ (at == position) for at, byte in enumerate(wrapped))
    for keys, stored in ((OTHER, wrapped), (ROOT, damaged), (ROOT, wrapped[1:]), (ROOT, b"")):
        with pytest.raises(WrongRootKey):
            data_keys(keys, stored).get(subject)


def test_a_sealed_value_that_names_another_key_is_refused_like_one_that_was_changed():
    wrapped = data_keys(ROOT, b"").create(STREAM)[1]
    codec = codec_over(ROOT, wrapped)
    encoded = Codec(data_keys(ROOT, wrapped), lambda _: ()).encode(msgspec.structs.replace(created(), originator_version=2))
    content = msgspec.json.decode(encoded.data)
    assert codec.decode(encoded).name == "Bone marrow"
    sealed = base64.b64decode(content["name"].removeprefix(SEALED_PREFIX))
    errors = set()
    for position in (0, 20):
        changed = bytes(byte ^ (at == position) for at, byte in enumerate(sealed))
        data = msgspec.json.encode(content | {"name": SEALED_PREFIX + base64.b64encode(changed).decode()})
        with pytest.raises(Undecodable) as error:
            codec.decode(msgspec.structs.replace(encoded, data=data))
        errors.add(str(error.value))
    assert len(errors) == 1


def test_an_address_of_an_unknown_key_is_refused_like_one_that_was_changed():
    token = seal(ROOT, ADDRESS)
    assert unseal(rotated(Purpose.SIGNED_URLS), token, **LINK) == ADDRESS
    changed = token[:20] + ("A" if token[20] != "A" else "B") + token[21:]
    told = set()
    for keys, wrong in ((OTHER, token), (ROOT, changed), (ROOT, token.removeprefix("3."))):
        with pytest.raises(Forbidden) as error:
            unseal(keys, wrong, **LINK)
        told.add(error.value.detail)
    assert len(told) == 1


def test_tokens_of_a_replaced_key_are_taken_and_new_ones_are_signed_by_the_newest():
    old, both, new = (SignedAccessTokens(keys, ttl=60) for keys in (ROOT, rotated(Purpose.ACCESS_TOKENS), OTHER))
    issue = {"user": SOMEBODY, "session": STREAM, "role": Role.VIEWER, "at": NOW}
    for tokens in (old, new):
        assert both.verify(tokens.issue(**issue), at=NOW).subject == SOMEBODY
    assert new.verify(both.issue(**issue), at=NOW).subject == SOMEBODY
    with pytest.raises(NotAuthenticated):
        old.verify(both.issue(**issue), at=NOW)


def test_a_head_names_the_key_that_signed_it():
    signed = SignedHead(position=1, hash="cd" * 32, signed_at=NOW).sign(ROOT.signing("heads"))
    both = [*OTHER.public("heads"), *ROOT.public("heads")]
    assert signed.genuine(both)
    renamed = SignedHead(position=1, hash="cd" * 32, signed_at=NOW).sign(OTHER.signing("heads")).key_id
    assert not msgspec.structs.replace(signed, key_id=renamed).genuine(both)


def test_a_claim_under_a_replaced_key_is_found_and_belongs_to_nobody_else():
    recorder, holder, other = MemoryRecorder(ROOT), uuid4(), uuid4()
    claim = {"scope": "email", "value": "ada@example.org"}
    append(RecorderEventStore(recorder, ROOT), holder, claims=[UniqueClaim(**claim, stream=holder)])
    purposes = (Purpose.DATA_KEYS, Purpose.EMAIL_CLAIMS)
    later = KeyRing({purpose: [*OTHER.all(purpose), *ROOT.all(purpose)] for purpose in purposes})
    recorder._digests = ClaimDigests(later)
    log = RecorderEventStore(recorder, later)
    assert log.claimed(**claim) == holder
    with pytest.raises(Taken):
        append(log, other, claims=[UniqueClaim(**claim, stream=other)])


# ---- a process without keys -----------------------------------------------------------------------------------------------------------
def test_a_process_without_data_keys_reads_the_rest_of_an_event_and_writes_nothing_private():
    codec = codec_over(NO_KEYS, WRAPPED)
    codec.prefetch([STORED])
    assert codec.decode(STORED) == created(name=WITHHELD)
    with pytest.raises(MissingKey, match="wrap data keys"):
        codec.encode(created())


@pytest.mark.parametrize(
    "made",
    [
        lambda keys: SignedAccessTokens(keys, ttl=60),
        lambda keys: KeyedDigest(keys, Purpose.REQUEST_DIGESTS),
        lambda keys: seal(keys, ADDRESS),
        RecordKey,
        lambda keys: keys.signing(Purpose.HEADS),
        lambda keys: keys.public(Purpose.HEADS),
        lambda keys: ClaimDigests(keys).of("email", "ada@example.org"),
    ],
)
def test_what_a_process_has_no_key_for_fails_when_it_is_made(made):
    with pytest.raises(MissingKey, match="does not hold the key"):
        made(NO_KEYS)


def test_the_public_key_alone_verifies_and_does_not_sign():
    ring = KeyRing({}, {Purpose.HEADS: ROOT.public("heads")})
    assert HEAD.genuine(ring.public(Purpose.HEADS))
    with pytest.raises(MissingKey):
        ring.signing(Purpose.HEADS)


def test_no_key_is_shown():
    key = Key(b"a very secret key of 32 bytes ..")
    assert "secret" not in repr(key)
