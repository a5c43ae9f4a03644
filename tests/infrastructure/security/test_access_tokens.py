"""Access tokens: ours are valid until they expire, and no others ever are."""

import base64
import hashlib
import hmac
import json
import os
from datetime import timedelta
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from domain.access import Role
from domain.errors import Invalid, NotAuthenticated
from infrastructure.security.access_tokens import CLOCK_LEEWAY_SECONDS, MAX_CACHED_TOKENS, SignedAccessTokens, service_id
from infrastructure.security.keys import RootKey
from tests.given import NOW

ROOT = RootKey(os.urandom(32))
KEY = ROOT.signing("access tokens")
PUBLIC = KEY.public_key()
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
OLD = RootKey(os.urandom(32))
STRANGER = Ed25519PrivateKey.generate()
TOKENS = SignedAccessTokens(ROOT, ttl=600)
USER, SESSION = uuid4(), uuid4()


def issued(at=NOW, role=Role.RESEARCHER):
    return TOKENS.issue(user=USER, session=SESSION, role=role, at=at)


def service(**changes):
    given = {"name": "classifier", "scopes": frozenset({"images:read", "events:read"}), "seconds": 86400, "at": NOW} | changes
    return TOKENS.issue_service(**given)


def encoded(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decoded(part):
    return base64.urlsafe_b64decode(part + "==")


def dense(value):
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


GOOD = issued()
PARTS = GOOD.split(".")
HEADER, PAYLOAD, SIGNATURE = json.loads(decoded(PARTS[0])), json.loads(decoded(PARTS[1])), decoded(PARTS[2])


def signed(header=None, payload=None, *, by=KEY.sign):
    """A token in all points ours, but for what is given."""
    start = f"{encoded(dense(header or HEADER))}.{encoded(dense(payload or PAYLOAD))}"
    return f"{start}.{encoded(by(start.encode()))}"


def hs256(key):
    return lambda data: hmac.new(key, data, hashlib.sha256).digest()


def headed(**changes):
    return signed({name: value for name, value in (HEADER | changes).items() if value is not None})


def saying(**changes):
    return signed(payload={name: value for name, value in (PAYLOAD | changes).items() if value is not None})


def padded(text):
    return text + "=" * (-len(text) % 4)


JWK = {"kty": "OKP", "crv": "Ed25519", "x": encoded(STRANGER.public_key().public_bytes_raw())}
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group: adding it leaves a sloppy check satisfied
TIME = int(NOW.timestamp())
SERVICE = json.loads(decoded(service().split(".")[1]))
TWICE = dense(PAYLOAD)[:-1] + b',"role":"admin"}'

FORGERIES = {
    # the algorithm
    "no algorithm, no signature": f"{encoded(dense(HEADER | {'alg': 'none'}))}.{PARTS[1]}.",
    "no algorithm, old signature": f"{encoded(dense(HEADER | {'alg': 'none'}))}.{PARTS[1]}.{PARTS[2]}",
    "none in another case": f"{encoded(dense(HEADER | {'alg': 'nOnE'}))}.{PARTS[1]}.",
    "alg missing": headed(alg=None),
    "HS256 with the public key in PEM": signed(HEADER | {"alg": "HS256"}, by=hs256(PEM)),
    "HS256 with the raw public key": signed(HEADER | {"alg": "HS256"}, by=hs256(PUBLIC.public_bytes_raw())),
    "HS256 with an empty key": signed(HEADER | {"alg": "HS256"}, by=hs256(b"")),
    "HMAC under our own header": signed(by=hs256(PEM)),
    "another name of the algorithm": headed(alg="Ed25519"),
    "RS256 claimed": headed(alg="RS256"),
    "a list of algorithms": headed(alg=["EdDSA", "none"]),
    # the key
    "a stranger's key": signed(by=STRANGER.sign),
    "the key of another purpose": signed(by=ROOT.signing("heads").sign),
    "an old root key": SignedAccessTokens(OLD, ttl=600).issue(user=USER, session=SESSION, role=Role.ADMIN, at=NOW),
    "an old root key under our kid": signed(by=OLD.signing("access tokens").sign),
    "kid missing": headed(kid=None),
    "kid empty": headed(kid=""),
    "kid of another key": headed(kid="0" * 16),
    "kid as a path": headed(kid="../../../../dev/null"),
    "kid as SQL": headed(kid="' union select 'key' --"),
    "kid as an address": headed(kid="https://evil.example/key"),
    "kid as a command": headed(kid="key|/usr/bin/id"),
    "kid as a number": headed(kid=0),
    "kid as a list": headed(kid=[HEADER["kid"]]),
    "a key brought along": signed(HEADER | {"jwk": JWK}, by=STRANGER.sign),
    "a key set elsewhere": signed(HEADER | {"jku": "https://evil.example/keys"}, by=STRANGER.sign),
    "a certificate elsewhere": signed(HEADER | {"x5u": "https://evil.example/cert"}, by=STRANGER.sign),
    "a certificate brought along": signed(HEADER | {"x5c": [encoded(b"cert")]}, by=STRANGER.sign),
    "our signature, with a key brought along": headed(jwk=JWK),
    # the header
    "a critical extension": headed(crit=["exp"]),
    "an empty list of critical extensions": headed(crit=[]),
    "unencoded payload": headed(crit=["b64"], b64=False),
    "typ of an id token": headed(typ="JWT"),
    "typ missing": headed(typ=None),
    "typ in capitals": headed(typ="AT+JWT"),
    "typ with a prefix": headed(typ="application/at+jwt"),
    "a nested token": headed(cty="JWT"),
    "compressed": headed(zip="DEF"),
    "header with a member twice": signed(dense(HEADER)[:-1] + b',"alg":"none"}'),
    "header with blanks": signed(json.dumps(HEADER).encode()),
    "header that is a list": signed(b'["EdDSA"]'),
    "header that is no JSON": signed(b"{alg:EdDSA}"),
    "header that is no UTF-8": signed(b'{"alg":"EdDSA\xff"}'),
    "header empty": f".{PARTS[1]}.{PARTS[2]}",
    # the claims, signed as if by us
    "no end": saying(exp=None),
    "end as text": saying(exp=str(TIME + 600)),
    "end as a fraction": saying(exp=TIME + 600.5),
    "end beyond all time": saying(exp=10**18),
    "end infinite": signed(payload=dense(PAYLOAD).replace(str(PAYLOAD["exp"]).encode(), b"1e999")),
    "end not a number": signed(payload=dense(PAYLOAD).replace(str(PAYLOAD["exp"]).encode(), b"NaN")),
    "end true": saying(exp=True),
    "ended": saying(iat=TIME - 700, nbf=TIME - 700, exp=TIME - CLOCK_LEEWAY_SECONDS),
    "not yet": saying(nbf=TIME + CLOCK_LEEWAY_SECONDS + 1),
    "issued in the future": saying(iat=TIME + CLOCK_LEEWAY_SECONDS + 1),
    "no beginning": saying(nbf=None),
    "no time of issue": saying(iat=None),
    "no id": saying(jti=None),
    "another issuer": saying(iss="https://evil.example"),
    "no issuer": saying(iss=None),
    "another audience": saying(aud="grafana"),
    "our audience among others": saying(aud=["bioscope", "grafana"]),
    "no audience": saying(aud=None),
    "a user for the audience of services": saying(aud="bioscope-services"),
    "a service for the audience of users": signed(payload=SERVICE | {"aud": "bioscope"}),
    "a service with a session": signed(payload=SERVICE | {"sid": str(SESSION)}),
    "a service with a role": signed(payload=SERVICE | {"role": "admin"}),
    "no subject": saying(sub=None),
    "a subject that is no id": saying(sub="admin"),
    "no session": saying(sid=None),
    "a role that is none": saying(role="root"),
    "two roles": saying(role=["viewer", "admin"]),
    "a role twice": signed(payload=TWICE),
    "one member more": saying(scope="events:read"),
    "members in another order": signed(payload=dict(reversed(PAYLOAD.items()))),
    "blanks between members": signed(payload=json.dumps(PAYLOAD).encode()),
    "a member escaped": signed(payload=dense(PAYLOAD).replace(b'"sub"', b'"\\u0073ub"')),
    "claims that are a list": signed(payload=b"[]"),
    "claims that are null": signed(payload=b"null"),
    "claims nested deep": signed(payload=b"[" * 1000 + b"]" * 1000),
    "no claims": signed(payload=b" "),
    # the signature and the writing
    "claims of a better role": f"{PARTS[0]}.{encoded(dense(PAYLOAD | {'role': 'admin'}))}.{PARTS[2]}",
    "no signature": f"{PARTS[0]}.{PARTS[1]}.",
    "two parts": f"{PARTS[0]}.{PARTS[1]}",
    "four parts": f"{GOOD}.{PARTS[2]}",
    "five parts, as if encrypted": ".".join([*PARTS, *PARTS[:2]]),
    "signature cut off": GOOD[:-4],
    "signature of zeros": f"{PARTS[0]}.{PARTS[1]}.{encoded(bytes(64))}",
    "signature too long": f"{PARTS[0]}.{PARTS[1]}.{encoded(SIGNATURE + b'0')}",
    "signature with another order of the group": f"{PARTS[0]}.{PARTS[1]}."
    + encoded(SIGNATURE[:32] + (int.from_bytes(SIGNATURE[32:], "little") + ORDER).to_bytes(32, "little")),
    "one bit of the signature": f"{PARTS[0]}.{PARTS[1]}.{encoded(bytes([SIGNATURE[0] ^ 1]) + SIGNATURE[1:])}",
    "signature written in another way": GOOD[:-1] + chr(ord(GOOD[-1]) + 1),
    "padded signature": f"{GOOD}==",
    "padded claims": f"{PARTS[0]}.{padded(PARTS[1])}.{PARTS[2]}" if len(PARTS[1]) % 4 else f"{PARTS[0]}.{PARTS[1]}=.{PARTS[2]}",
    "padded header": f"{padded(PARTS[0])}.{PARTS[1]}.{PARTS[2]}" if len(PARTS[0]) % 4 else f"{PARTS[0]}=.{PARTS[1]}.{PARTS[2]}",
    "a line's end": f"{GOOD}\n",
    "a blank in front": f" {GOOD}",
    "a NUL": f"{GOOD}\0",
    "a blank inside": f"{PARTS[0]}.{PARTS[1][:10]} {PARTS[1][10:]}.{PARTS[2]}",
    "letters of the plain alphabet": GOOD.replace("-", "+").replace("_", "/") if set("-_") & set(GOOD) else f"{GOOD}+/",
    "nothing": "",
    "only dots": "..",
    "full-width letters": GOOD.replace("e", "\N{FULLWIDTH LATIN SMALL LETTER E}", 1),
    "a lone surrogate": f"{GOOD[:-1]}\ud800",
    "a megabyte": f"{GOOD}{'A' * 1_000_000}",
    "with its scheme": f"Bearer {GOOD}",
}  # fmt: skip


@pytest.mark.parametrize("forged", FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forgery_is_refused(forged):
    with pytest.raises(NotAuthenticated) as refused:
        SignedAccessTokens(ROOT, ttl=600).verify(forged, at=NOW)
    assert refused.value.detail == "Invalid token"


def test_what_forgeries_are_made_with_makes_good_tokens_when_nothing_is_changed():
    assert signed() == GOOD
    assert headed() == GOOD
    assert saying() == GOOD
    assert TOKENS.verify(GOOD, at=NOW)
    assert len(FORGERIES) >= 100


def test_a_token_says_who_in_which_session_and_until_when():
    claims = TOKENS.verify(issued(role=Role.ADMIN), at=NOW)
    assert (claims.subject, claims.session_id, claims.role) == (USER, SESSION, Role.ADMIN)
    assert claims.scopes == frozenset()
    assert claims.expires_at - claims.issued_at == timedelta(seconds=600)
    assert PAYLOAD["roles"] == "researcher"
    assert HEADER["typ"] == "at+jwt"


def test_no_two_tokens_are_the_same():
    assert len({issued() for _ in range(10)}) == 10


def test_a_service_has_scopes_and_no_session_and_always_the_same_id():
    claims = TOKENS.verify(service(), at=NOW)
    assert claims.subject == service_id("classifier")
    assert (claims.session_id, claims.role) == (None, None)
    assert claims.scopes == {"images:read", "events:read"}
    assert TOKENS.verify(service(scopes=frozenset()), at=NOW).scopes == frozenset()


@pytest.mark.parametrize("name", ["", "two words", "x" * 101, "a/b", "line\nend"])
def test_a_service_has_a_plain_name(name):
    with pytest.raises(Invalid):
        service(name=name)


@pytest.mark.parametrize(("seconds", "believed"), [(-31, False), (-30, True), (0, True), (600 + 29, True), (600 + 30, False)])
def test_clocks_may_differ_by_half_a_minute(seconds, believed):
    token = issued()
    for _ in range(2):  # the second time from memory
        if believed:
            assert TOKENS.verify(token, at=NOW + timedelta(seconds=seconds))
        else:
            with pytest.raises(NotAuthenticated):
                TOKENS.verify(token, at=NOW + timedelta(seconds=seconds))


def test_a_remembered_token_ends_all_the_same():
    token = issued()
    TOKENS.verify(token, at=NOW)
    with pytest.raises(NotAuthenticated):
        TOKENS.verify(token, at=NOW + timedelta(hours=1))


def test_only_so_many_are_remembered_and_forged_ones_never():
    tokens = SignedAccessTokens(ROOT, ttl=600)
    for _ in range(MAX_CACHED_TOKENS + 10):
        tokens.verify(issued(), at=NOW)
    assert len(tokens._verified) == MAX_CACHED_TOKENS
    for forged in FORGERIES.values():
        with pytest.raises(NotAuthenticated):
            tokens.verify(forged, at=NOW)
        assert forged not in tokens._verified


def test_two_processes_with_one_root_key_believe_each_other():
    assert SignedAccessTokens(ROOT, ttl=1).verify(GOOD, at=NOW).subject == USER


@given(at=st.integers(0, len(GOOD) - 1), sign=st.characters())
def test_no_character_can_be_changed(at, sign):
    changed = GOOD[:at] + sign + GOOD[at + 1 :]
    if changed != GOOD:
        with pytest.raises(NotAuthenticated):
            TOKENS.verify(changed, at=NOW)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")) | st.builds("{}.{}.{}".format, st.text(), st.text(), st.text()))
def test_nothing_else_is_ever_taken_for_a_token(text):
    with pytest.raises(NotAuthenticated):
        TOKENS.verify(text, at=NOW)
