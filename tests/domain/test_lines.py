"""Names have one line, and no characters that hide. Only texts that people write as such have several: descriptions and reasons."""

from uuid import UUID

import msgspec
import pytest

from application.key_text import KeySecret
from domain import api_key, dataset, dead_letter, declaration, device, image, model_check, policy, registration, service_account, team, user
from domain.access import Scope
from domain.errors import Invalid
from domain.policy import PolicyRules, PolicyScope
from tests.given import NOW, state_after

ID = UUID(int=1)
BY = {"by": ID, "at": NOW}
NAMES = {"username": "grace", "first_name": "Grace", "last_name": "Hopper"}
DEVICE = {"name": "scope", "hostname": "scope-1", "location": "room 7", "firmware_version": "1.2"}
CLASSIFIER = {"name": "vesicles", "description": "", "labels": ("flat",), "label_texts": {}, "review_below": 0.5}
PERSON = state_after(user.evolve, [user.register(ID, email="grace@example.org", **NAMES, **BY)])
MICROSCOPE = state_after(device.evolve, [device.register(ID, **DEVICE, **BY)])
DATASET = state_after(dataset.evolve, [dataset.create(ID, name="slides", description=None, **BY)])
TEAM = state_after(team.evolve, [team.create(ID, name="blood", **BY)])


def a_key(name):
    return api_key.issue(
        ID, owner=ID, owner_kind=api_key.OwnerKind.USER, name=name, scopes=[Scope.IMAGES_READ], datasets=None, secret_hash=bytes(32), **BY
    )


def an_upload(filename):
    return image.upload(
        ID, dataset=ID, device=None, filename=filename, sha256="0" * 64, size=1, media_type="image/png", width=1, height=1, **BY
    )


def a_discarding(reason):
    return dead_letter.discard(position=1, stream=ID, type_name="DatasetCreated", error="", reason=reason, **BY)


def a_policy(reason):
    return policy.set_policy(None, scope=PolicyScope.JOB, target=ID, dataset=ID, rules=PolicyRules(), reason=reason, **BY)


ONE_LINE = {
    **{f"registration {name}": (name, lambda it, name=name: registered(**{name: it})) for name in NAMES},
    **{f"account {name}": (name, lambda it, name=name: an_account(**{name: it})) for name in NAMES},
    **{
        f"profile {name}": (name, lambda it, name=name: user.change_profile(PERSON, {name: it}, **BY))
        for name in ("first_name", "last_name", "institution", "department", "phone")
    },
    **{f"device {name}": (name, lambda it, name=name: device.register(ID, **DEVICE | {name: it}, **BY)) for name in DEVICE},
    **{f"changed device {name}": (name, lambda it, name=name: device.describe(MICROSCOPE, {name: it}, **BY)) for name in DEVICE},
    "dataset": ("name", lambda it: dataset.create(ID, name=it, description=None, **BY)),
    "renamed dataset": ("name", lambda it: dataset.describe(DATASET, name=it, **BY)),
    "team": ("name", lambda it: team.create(ID, name=it, **BY)),
    "renamed team": ("name", lambda it: team.rename(TEAM, name=it, **BY)),
    "key": ("name", a_key),
    "image": ("filename", an_upload),
    "package": ("filename", lambda it: model_check.upload(ID, filename=it, sha256="0" * 64, size=1, **BY)),
    "label": ("labels", lambda it: declaration.declare(**CLASSIFIER | {"labels": (it,)})),
    "label in words": ("label_texts", lambda it: declaration.declare(**CLASSIFIER | {"label_texts": {"flat": it}})),
}
SEVERAL_LINES = {
    "dataset": lambda it: dataset.create(ID, name="slides", description=it, **BY),
    "changed dataset": lambda it: dataset.describe(DATASET, description=it, **BY),
    "service": lambda it: service_account.create(ID, name="scope-1", description=it, **BY),
    "classifier": lambda it: declaration.declare(**CLASSIFIER | {"description": it}),
    "policy": a_policy,
    "discarding": a_discarding,
}


def registered(**names):
    return registration.request(ID, email="grace@example.org", **NAMES | names, request_id=ID, at=NOW)


def an_account(**names):
    return user.register(ID, email="grace@example.org", **NAMES | names, **BY)


BROKEN = [f"one{between}two" for between in ("\n", "\t", "\u2028", "\u2029")]


@pytest.mark.parametrize(("field", "decide"), ONE_LINE.values(), ids=ONE_LINE)
def test_a_name_has_one_line_and_a_refusal_names_it(field, decide):
    decide("one two")
    for broken in BROKEN:
        with pytest.raises(Invalid, match="must be one line without tabs") as refused:
            decide(broken)
        assert refused.value.errors == [{"loc": ["body", field], "msg": "must be one line without tabs"}]


HIDDEN = [f"one{hidden}two" for hidden in "\u00ad\u061c\u200b\u200e\u200f\u202a\u202e\u2060\u2066\u2069\ufeff\U000e0041"]
UNIQUE = {"registration username", "account username", "device hostname", "changed device hostname"}
NOT_IN_UNIQUE = ["one\u200ctwo", "one\u200dtwo", "one\ufe0f two", "one\u034ftwo", "one\u3164two", "one\U000e0100two"]


@pytest.mark.parametrize(("kind", "field", "decide"), [(kind, *rest) for kind, rest in ONE_LINE.items()], ids=ONE_LINE)
def test_a_name_has_no_invisible_characters_but_joiners_where_scripts_need_them(kind, field, decide):
    refused_texts = [*HIDDEN, *(NOT_IN_UNIQUE if kind in UNIQUE else ["\u200done", "one\u200c", "\u200d\u200d\u200d"])]
    for hidden in refused_texts:
        with pytest.raises(Invalid, match="must not contain invisible characters") as refused:
            decide(hidden)
        assert [error["loc"] for error in refused.value.errors] == [["body", field]]
    if kind not in UNIQUE | {"label"}:
        assert decide("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
        assert decide("\u0dc1\u0dca\u200d\u0dbb\u0dd3")


SECRETS = [KeySecret(bytes(32)).text(ID), f"bsl_{'Ab3-' * 23}", f"bsb_{'Ab3_' * 12}"]


TEXTS = {
    **{f"one line: {kind}": decide for kind, (_, decide) in ONE_LINE.items()},
    **{f"several lines: {kind}": decide for kind, decide in SEVERAL_LINES.items()},
    "service name": lambda it: service_account.create(ID, name=it, **BY),
}


@pytest.mark.parametrize("decide", TEXTS.values(), ids=TEXTS)
def test_no_text_contains_a_secret_of_this_system(decide):
    for secret in SECRETS:
        with pytest.raises(Invalid, match="must not contain a key or the token of a link") as refused:
            decide(secret)
        assert secret not in str(refused.value)
    decide("bsk_7")


@pytest.mark.parametrize("decide", SEVERAL_LINES.values(), ids=SEVERAL_LINES)
@pytest.mark.parametrize("text", BROKEN)
def test_descriptions_and_reasons_have_several_lines(decide, text):
    assert decide(text)


def test_a_stored_name_of_several_lines_stays_and_does_not_prevent_other_changes():
    stored = msgspec.structs.replace(dataset.create(ID, name="slides", description=None, **BY), name="one\ntwo")
    before = state_after(dataset.evolve, [stored])
    after = state_after(dataset.evolve, dataset.describe(before, description="of blood", **BY), before)
    assert (after.name, after.description) == ("one\ntwo", "of blood")
