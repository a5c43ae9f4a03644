"""The sentences of the trail of access, one of each kind."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from application.history.access_records import AccessKind, AccessOutcome, ShownAccess, TrailKind
from application.history.access_sentences import SENTENCES, access_sentence

ANNA, BOB, MICROSCOPE, KEY, SCAN, BIOPSIES, MODEL, NOBODY = (UUID(int=number) for number in range(1, 9))
NAMES = {
    ANNA: "Anna Kowalska",
    BOB: "Bob Lab",
    MICROSCOPE: "microscope-3",
    KEY: "night shift",
    SCAN: "scan-12.tif",
    BIOPSIES: "Biopsies",
    MODEL: "pbc8",
}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
IMAGE = {"noun": "image", "object_id": SCAN, "dataset_id": BIOPSIES}
USER = {"noun": "user", "object_id": BOB}
DATASET = {"noun": "dataset", "object_id": BIOPSIES}
ROBOT = {"noun": "service", "object_id": MICROSCOPE}
NOT_KNOWN = {"actor_id": None, "actor_kind": "anonymous"}
REFUSED, THROTTLED = {"outcome": AccessOutcome.REFUSED}, {"outcome": AccessOutcome.THROTTLED}


def shown(kind, **changes):
    fields = {"position": 1, "at": NOON, "kind": kind, "outcome": AccessOutcome.ALLOWED, "actor_id": ANNA, "actor_kind": "user"}
    fields |= {"key_id": None, "noun": "", "object_id": None, "dataset_id": None, "route": "GET /api/images", "request_id": "r"}
    return ShownAccess(**fields | {"count": 1, "address": "192.0.2.7"} | changes)


GOLDEN = [
    (shown("sign_in", **NOT_KNOWN, **USER, **REFUSED), "Somebody tried to sign in as Bob Lab from 192.0.2.7, and was refused"),
    (shown("sign_in", **NOT_KNOWN, **REFUSED), "Somebody tried to sign in to an unknown account from 192.0.2.7, and was refused"),
    (shown("sign_in", **NOT_KNOWN, **THROTTLED), "Somebody tried to sign in too often from 192.0.2.7"),
    (shown("sign_in", **NOT_KNOWN, **USER, **REFUSED, address=None), "Somebody tried to sign in as Bob Lab, and was refused"),
    (
        shown("sign_in", **NOT_KNOWN, **REFUSED, request_id="", count=99_940),
        "99,940 more refused sign-ins from 192.0.2.7",
    ),
    (shown("not_authenticated", **NOT_KNOWN, **REFUSED), "Somebody used an invalid token from 192.0.2.7"),
    (shown("not_authenticated", **NOT_KNOWN, **USER, **REFUSED), "Somebody used an invalid token of Bob Lab from 192.0.2.7"),
    (
        shown("not_authenticated", route="POST /account/reset", **NOT_KNOWN, **REFUSED),
        "Somebody opened a link that does not work from 192.0.2.7",
    ),
    *(
        (shown("forbidden", route=route, **{**about, **REFUSED}), f"Anna Kowalska tried to {words}, and was refused")
        for route, about, words in (
            ("DELETE /api/datasets/{dataset_id}", DATASET, "delete the dataset Biopsies"),
            ("POST /api/datasets/{dataset_id}/shares", DATASET, "share the dataset Biopsies"),
            ("POST /api/datasets/{dataset_id}/transfer", DATASET, "give the dataset Biopsies to another owner"),
            ("POST /api/keys/{key_id}/rotate", {"noun": "key", "object_id": KEY}, "rotate the key night shift"),
            ("DELETE /api/service-accounts/{service_id}", ROBOT, "delete the service account microscope-3"),
            ("PATCH /api/users/users/{user_id}", {"noun": "user", "object_id": ANNA}, "change their own account"),
            ("PATCH /api/users/users/{user_id}", USER, "change the account of Bob Lab"),
            ("PUT /api/policies/{policy_scope}/{target_id}", {"object_id": BIOPSIES}, "set the policy of Biopsies"),
            ("POST /api/keys", {}, "issue a key"),
            ("POST /account/password", {}, "change their own password"),
            ("POST /sign-out", {}, "sign out"),
            ("GET /api/users/me", {"key_id": KEY}, "read their own account with the key night shift"),
            ("GET /api/users/users", {}, "read a list of users"),
            ("GET /api/images/{image_id}/preview", IMAGE, "look at scan-12.tif (dataset Biopsies)"),
            ("GET /api/images", DATASET, "read a list of images of the dataset Biopsies"),
            ("GET /api/statistics/results", {}, "read statistics of results"),
            ("PUT /api/of-another-release", {}, "do something that only another release can describe"),
        )
    ),
    (
        shown("forbidden", actor_id=MICROSCOPE, actor_kind="service", key_id=KEY, route="POST /api/classifications/run", **REFUSED),
        "The service account microscope-3 tried to run a model with the key night shift, and was refused",
    ),
    *(
        (shown("not_found", route=route, **{**about, **REFUSED}), f"Anna Kowalska {words}")
        for route, about, words in (
            ("GET /api/images/{image_id}", {"noun": "image", "object_id": SCAN}, "asked for scan-12.tif, and found nothing"),
            ("GET /api/images/{image_id}", {"noun": "image", "object_id": NOBODY}, "asked for an image, and found nothing"),
            ("GET /api/of-another-release", DATASET, "asked for the dataset Biopsies, and found nothing"),
            ("DELETE /api/keys/{key_id}", {"noun": "api_key", "object_id": KEY}, "tried to revoke the key night shift, and found nothing"),
            ("POST /api/classifications/run", DATASET, "tried to run a model, and did not find the dataset Biopsies"),
            (
                "PUT /api/datasets/{dataset_id}/shares/{user_id}",
                USER,
                "tried to share a dataset, and did not find the account of Bob Lab",
            ),
        )
    ),
    (shown("preview", **IMAGE), "Anna Kowalska looked at scan-12.tif (dataset Biopsies)"),
    (
        shown("download", **IMAGE, key_id=KEY),
        "Anna Kowalska downloaded scan-12.tif (dataset Biopsies) with the key night shift",
    ),
    (shown("download", noun="model", object_id=MODEL), "Anna Kowalska downloaded the model pbc8"),
    (shown("export", **DATASET), "Anna Kowalska exported results of the dataset Biopsies"),
    (shown("export"), "Anna Kowalska exported results"),
    (
        shown("key_use", actor_id=MICROSCOPE, actor_kind="service", key_id=KEY),
        "The service account microscope-3 used the key night shift from 192.0.2.7",
    ),
    (shown("key_use", actor_id=NOBODY, actor_kind="service"), "A service used a token from 192.0.2.7"),
    (
        shown("admin_read", **IMAGE, route="GET /api/images/{image_id}"),
        "Anna Kowalska read scan-12.tif (dataset Biopsies) as an administrator",
    ),
    (shown("admin_read", **USER, route="GET /api/users/users/{user_id}"), "Anna Kowalska read the account of Bob Lab as an administrator"),
    (shown("admin_read", route="GET /api/audit"), "Anna Kowalska read the audit trail as an administrator"),
    (
        shown("admin_read", noun="", object_id=SCAN, route="GET /api/audit/{about}/trail"),
        "Anna Kowalska read the audit trail of scan-12.tif as an administrator",
    ),
    (shown("admin_read", route="GET /api/users/users"), "Anna Kowalska read a list of users as an administrator"),
    (
        shown("admin_read", **DATASET, route="GET /api/images"),
        "Anna Kowalska read a list of images of the dataset Biopsies as an administrator",
    ),
    (
        shown("admin_read", **DATASET, route="GET /api/datasets/{dataset_id}/shares"),
        "Anna Kowalska read a list of shares of the dataset Biopsies as an administrator",
    ),
    (shown("preview", actor_id=NOBODY, noun="image", object_id=NOBODY), "A user looked at an image"),
]


@pytest.mark.parametrize(("access", "sentence"), GOLDEN, ids=[sentence for _, sentence in GOLDEN])
def test_a_record_reads_as_a_sentence(access, sentence):
    assert access_sentence(access, NAMES) == sentence


def test_every_kind_has_a_sentence_and_an_example():
    assert set(SENTENCES) == set(AccessKind) == {access.kind for access, _ in GOLDEN}


def test_the_kinds_of_the_trail_are_those_of_accesses_and_a_change():
    assert {kind.value for kind in TrailKind} == {kind.value for kind in AccessKind} | {"change"}


@pytest.mark.parametrize("kind", list(AccessKind))
def test_a_record_of_which_nothing_is_known_any_more_still_reads_as_a_sentence(kind):
    sentence = access_sentence(shown(kind, actor_id=None, noun="another", object_id=NOBODY, route="", address=None), {})
    assert sentence
    assert "None" not in sentence
