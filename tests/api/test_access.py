"""Access rights: every route, with every role, on own, shared, foreign and absent things. Each cell of the table is executed."""

import re
from base64 import b64encode
from itertools import count
from types import SimpleNamespace
from uuid import uuid4

import pytest
from litestar.routes import HTTPRoute

from api.clock import utc_now
from application.derivatives import thumbnail_of
from application.ports import Command
from application.signed_downloads import Holder
from domain import (
    api_key,
    classification,
    dataset,
    device,
    image,
    invitation,
    model,
    model_check,
    policy,
    service_account,
    session,
    team,
    user,
)
from domain.access import Actor, Grant, Role, Scope
from domain.api_key import OwnerKind
from domain.classification import ImageResult, PlannedImage, Verdict
from domain.policy import PolicyRules, PolicyScope
from domain.values import model_id, result_id, system_actor
from tests.api.conftest import PASSWORD
from tests.api.http_calls import PICTURE
from tests.api.worker_events import LABELS, SHA256
from tests.given import provenance
from tests.twins.predictor import MemoryPredictor

pytestmark = pytest.mark.anyio

TABLE = """
POST   /api/auth/accept-invitation                          l  l      l      l      l      l  l
POST   /api/auth/bootstrap                                  l  l      l      l      l      l  l
POST   /api/auth/confirm-email                              l  l      l      l      l      l  l
POST   /api/auth/forgot-password                            +  +      +      +      +      +  +
POST   /api/auth/login                                      +  +      +      +      +      +  +
POST   /api/auth/login-swagger                              +  +      +      +      +      +  +
POST   /api/auth/logout                                     !  +      +      +      +      -  -
POST   /api/auth/refresh                                    !  !      !      !      !      !  !
POST   /api/auth/register                                   +  +      +      +      +      +  +
GET    /api/sessions                                        !  +      +      +      +      -  -
DELETE /api/sessions                                        !  +      +      +      +      -  -
DELETE /api/sessions/{session_id}                           !! +..    +..    +..    +..    -- --
POST   /api/auth/reset-password                             l  l      l      l      l      l  l
POST   /api/auth/verification                               +  +      +      +      +      +  +
POST   /api/auth/verify                                     l  l      l      l      l      l  l
GET    /api/invitations                                     !  -      -      -      +      -  -
POST   /api/invitations                                     !  -      -      -      +      -  -
POST   /api/invitations/{invitation_id}/resend              !! --     --     --     +.     -- --
DELETE /api/invitations/{invitation_id}                     !! --     --     --     +.     -- --
GET    /api/users/me                                        !  +      +      +      +      -  -
GET    /api/users/users                                     !  -      -      -      +      -  -
GET    /api/users/users/{user_id}                           !! +..    +..    +..    ++.    -- --
PATCH  /api/users/users/{user_id}                           !! +--    +--    +--    ++.    -- --
DELETE /api/users/users/{user_id}                           !! ---    ---    ---    c++    -- --
GET    /api/keys                                            !  +      +      +      +      -  -
POST   /api/keys                                            !  +      +      +      +      -  -
POST   /api/keys/{key_id}/rotate                            !! +..    +..    +..    +-.    -- --
DELETE /api/keys/{key_id}                                   !! +..    +..    +..    ++.    -- --
GET    /api/service-accounts                                !  -      -      -      +      -  -
POST   /api/service-accounts                                !  -      -      -      +      -  -
GET    /api/service-accounts/{service_id}                   !! --     --     --     +.     -- --
DELETE /api/service-accounts/{service_id}                   !! --     --     --     +.     -- --
GET    /api/service-accounts/{service_id}/keys              !! --     --     --     +.     -- --
POST   /api/service-accounts/{service_id}/keys              !! --     --     --     +.     -- --
GET    /api/users/users/{user_id}/sessions                  !! +--    +--    +--    ++.    -- --
DELETE /api/users/users/{user_id}/sessions                  !! +--    +--    +--    ++.    -- --
DELETE /api/users/users/{user_id}/sessions/{session_id}     !! +--    +--    +--    ++.    -- --
POST   /api/users/users/{user_id}/password-reset            !! ---    ---    ---    ++.    -- --
GET    /api/devices                                         !  -      +      +      +      -  -
POST   /api/devices                                         !  -      -      -      +      -  -
GET    /api/devices/{device_id}                             !! --     +.     +.     +.     -- --
PATCH  /api/devices/{device_id}                             !! --     --     --     +.     -- --
DELETE /api/devices/{device_id}                             !! --     --     --     +.     -- --
PATCH  /api/devices/{device_id}/status                      !! --     --     --     +.     -- --
GET    /api/datasets                                        !  +      +      +      +      -  -
POST   /api/datasets                                        !  -      +      +      +      -  -
GET    /api/datasets/{dataset_id}                           !! ++++.. ++++.. ++++.. +++++. -- --
PATCH  /api/datasets/{dataset_id}                           !! ------ ++--.. ++--.. +++++. -- --
DELETE /api/datasets/{dataset_id}                           !! ------ +---.. +---.. +++++. -- --
GET    /api/datasets/{dataset_id}/shares                    !! ++++.. ++++.. ++++.. +++++. -- --
PUT    /api/datasets/{dataset_id}/shares/{user_id}          !! ------ ------ +---.. +++++. -- --
DELETE /api/datasets/{dataset_id}/shares/{user_id}          !! ------ ------ +---.. +++++. -- --
POST   /api/datasets/{dataset_id}/shares                    !! ------ ------ +---.. +++++. -- --
PUT    /api/datasets/{dataset_id}/shares/teams/{team_id}    !! ------ ------ +---.. +++++. -- --
DELETE /api/datasets/{dataset_id}/shares/teams/{team_id}    !! ------ ------ +---.. +++++. -- --
POST   /api/datasets/{dataset_id}/transfer                  !! ------ ------ +---.. +++++. -- --
GET    /api/teams                                           !  +      +      +      +      -  -
POST   /api/teams                                           !  -      -      +      +      -  -
GET    /api/teams/{team_id}                                 !! ++..   ++..   ++..   +++.   -- --
PATCH  /api/teams/{team_id}                                 !! ----   ----   +-..   +++.   -- --
DELETE /api/teams/{team_id}                                 !! ----   ----   +-..   +++.   -- --
POST   /api/teams/{team_id}/members                         !! ----   ----   +-..   +++.   -- --
PUT    /api/teams/{team_id}/members/{user_id}               !! ----   ----   +-..   +++.   -- --
DELETE /api/teams/{team_id}/members/{user_id}               !! ----   ----   +-..   +++.   -- --
GET    /api/images                                          !  +      +      +      +      +  -
POST   /api/images/upload                                   !! ------ +++-.. +++-.. +++++. -- --
GET    /api/images/{image_id}                               !! ++++.. ++++.. ++++.. +++++. +. --
PATCH  /api/images/{image_id}                               !! ------ ++--.. ++--.. +++++. -- --
DELETE /api/images/{image_id}                               !! ------ +---.. ++--.. +++++. -- --
GET    /api/images/{image_id}/download                      !! ++++.. ++++.. ++++.. +++++. +. --
GET    /api/images/{image_id}/preview                       !! ++++.. ++++.. ++++.. +++++. +. --
GET    /api/images/{image_id}/thumbnail                     !! ++++.. ++++.. ++++.. +++++. +. --
GET    /api/blobs/{token}                                   +- +-     +-     +-     +-     +- +-
GET    /api/models                                          !  +      +      +      +      -  -
POST   /api/models                                          !  -      -      +      +      -  -
POST   /api/models/external                                 !  -      -      +      +      -  -
GET    /api/models/{name_or_id}                             !! +.     +.     +.     +.     -- --
POST   /api/models/{name}/versions/{number}/checks          !! --     --     +.     +.     -- --
GET    /api/model-checks                                    !  +      +      +      +      -  -
GET    /api/model-checks/{check_id}                         !! ..     ..     ..     +.     -- --
GET    /api/models/{name}/history                           !! +.     +.     +.     +.     -- --
PUT    /api/models/{name}/aliases/{alias}                   !! +-.    +-.    +-.    ++.    -- --
POST   /api/models/{name}/retire                            !! +-.    +-.    +-.    ++.    -- --
PUT    /api/models/{name}/promoters/{user_id}               !! --     --     --     +.     -- --
DELETE /api/models/{name}/promoters/{user_id}               !! --     --     --     +.     -- --
PUT    /api/models/{name}/promoters/teams/{team_id}         !! --     --     --     +.     -- --
DELETE /api/models/{name}/promoters/teams/{team_id}         !! --     --     --     +.     -- --
GET    /api/models/{name}/versions/{number}/package         !! --     +.     +.     +.     -- --
GET    /api/classifications                                 !  +      +      +      +      -  -
POST   /api/classifications/run                             !! ------ +++-.. +++-.. +++++. -- --
GET    /api/classifications/{job_id}                        !! ++++.. ++++.. ++++.. +++++. -- --
DELETE /api/classifications/{job_id}                        !! ------ +---.. ++--.. +++++. -- --
POST   /api/classifications/{job_id}/cancel                 !! ------ +++-.. +++-.. +++++. -- --
GET    /api/classifications/{job_id}/failures               !! ++++.. ++++.. ++++.. +++++. -- --
POST   /api/classifications/{job_id}/retry                  !! ------ +++-.. +++-.. +++++. -- --
GET    /api/classification-results                          !  +      +      +      +      -  -
GET    /api/classification-results/classification/{job_id}  !! ++++++ ++++++ ++++++ ++++++ -- --
GET    /api/classification-results/image/{image_id}         !! ++++++ ++++++ ++++++ ++++++ -- --
GET    /api/classification-results/export                   !  +      +      +      +      -  -
GET    /api/classification-results/today/statistics         !  +      +      +      +      -  -
GET    /api/classification-results/{result_id}              !! ++++.. ++++.. ++++.. +++++. -- --
GET    /api/classification-results/{result_id}/policy       !! ++++.. ++++.. ++++.. +++++. -- --
GET    /api/policies                                        !  +      +      +      +      -  -
GET    /api/policies/{policy_scope}/{target_id}             !! ++++.. ++++.. ++++.. +++++. -- --
PUT    /api/policies/{policy_scope}/{target_id}             !! ------ ------ ++--.. +++++. -- --
DELETE /api/policies/{policy_scope}/{target_id}             !! ------ ------ ++--.. +++++. -- --
GET    /api/policies/{policy_scope}/{target_id}/history     !! ++++.. ++++.. ++++.. +++++. -- --
POST   /api/policies/{policy_scope}/{target_id}/preview     !! ------ ------ ++--.. +++++. -- --
GET    /api/statistics/results                              !  +      +      +      +      -  -
GET    /api/v2                                              !  +      +      +      +      -  -
GET    /api/v2/health/live                                  +  +      +      +      +      +  +
GET    /api/v2/health/ready                                 +  +      +      +      +      +  +
GET    /api/v2/models/{name}                                !! +.     +.     +.     +.     -- --
GET    /api/v2/models/{name}/ready                          !! +.     +.     +.     +.     -- --
POST   /api/v2/models/{name}/infer                          !! --     +.     +.     +.     -- --
GET    /api/v2/models/{name}/versions/{version}             !! +.     +.     +.     +.     -- --
GET    /api/v2/models/{name}/versions/{version}/ready       !! +.     +.     +.     +.     -- --
POST   /api/v2/models/{name}/versions/{version}/infer       !! --     +.     +.     +.     -- --
GET    /api/events                                          !  -      -      -      +      -  +
GET    /api/events/heads                                    !  -      -      -      +      -  +
GET    /api/events/schemas                                  !  +      +      +      +      -  +
GET    /api/events/schemas/{kind}                           !! +.     +.     +.     +.     -- +.
GET    /api/audit                                           !  -      -      -      +      -  -
GET    /api/audit/{about}/images                            !! --     --     --     +.     -- --
GET    /api/audit/{about}/results                           !! --     --     --     ..     -- --
GET    /api/audit/{about}/state                             !! --     --     --     +.     -- --
GET    /api/audit/{about}/trail                             !! --     --     --     +.     -- --
GET    /api/asyncapi.json                                   +  +      +      +      +      +  +
GET    /api/docs                                            +  +      +      +      +      +  +
GET    /api/docs/assets/{name}                              +. +.     +.     +.     +.     +. +.
GET    /docs                                                +  +      +      +      +      +  +
GET    /api/health                                          +  +      +      +      +      +  +
GET    /api/health/live                                     +  +      +      +      +      +  +
GET    /api/health/ready                                    +  +      +      +      +      +  +
GET    /health                                              +  +      +      +      +      +  +
GET    /health/live                                         +  +      +      +      +      +  +
GET    /health/ready                                        +  +      +      +      +      +  +
GET    /metrics                                             +  +      +      +      +      +  +
GET    /api/openapi.json                                    +  +      +      +      +      +  +
GET    /api/redoc                                           +  +      +      +      +      +  +
GET    /redoc                                               +  +      +      +      +      +  +
GET    /                                                    +  +      +      +      +      +  +
GET    /account                                             >  >      >      >      >      >  >
GET    /account/email                                       l  l      l      l      l      l  l
POST   /account/email                                       -  -      -      -      -      -  -
GET    /account/invitation                                  l  l      l      l      l      l  l
POST   /account/invitation                                  -  -      -      -      -      -  -
GET    /account/password                                    >  >      >      >      >      >  >
POST   /account/password                                    -  -      -      -      -      -  -
GET    /account/profile                                     >  >      >      >      >      >  >
POST   /account/profile                                     -  -      -      -      -      -  -
GET    /account/reset                                       l  l      l      l      l      l  l
POST   /account/reset                                       -  -      -      -      -      -  -
POST   /account/sessions                                    -  -      -      -      -      -  -
POST   /account/verification                                -  -      -      -      -      -  -
GET    /account/verify                                      l  l      l      l      l      l  l
POST   /account/verify                                      -  -      -      -      -      -  -
GET    /forgot-password                                     +  +      +      +      +      +  +
POST   /forgot-password                                     -  -      -      -      -      -  -
GET    /pages.css                                           +  +      +      +      +      +  +
GET    /register                                            +  +      +      +      +      +  +
POST   /register                                            -  -      -      -      -      -  -
GET    /setup                                               l  l      l      l      l      l  l
POST   /setup                                               -  -      -      -      -      -  -
GET    /sign-in                                             +  +      +      +      +      +  +
POST   /sign-in                                             -  -      -      -      -      -  -
POST   /sign-out                                            -  -      -      -      -      -  -
"""
"""+ done, ! who are you (401), - not for you (403), . there is none (404), c not as things are (409), l an invalid link (400), > another
page (303). Valid links are opened in tests/api/test_registrations.py, and pages by their own forms in tests/api/test_pages_for_people.py.

A cell has a sign for each thing that a route can be about. Of what belongs to a dataset: one's own, shared as an editor, as an analyst, as
a viewer, foreign, absent. Of teams: one's own, one that the caller is in, foreign, absent. Of accounts: one's own, foreign, absent. Of
changes of models: one that the caller may promote, another, absent. Of all else, and for nobody and services: there, absent.

Further cells follow from these: a grant by a team answers as the same grant given directly, an id that is none names nothing, and a key
reaches no more than its owner and its list of datasets allow.
"""

COLUMNS = ("anonymous", *Role, "images", "events")
SERVICES = {"images": Scope.IMAGES_READ, "events": Scope.EVENTS_READ}
SIGNS = {303: ">", 400: "l", 401: "!", 403: "-", 404: ".", 409: "c"}
OF_A_MODEL = ("promoted", "foreign", "absent")
OF_A_TEAM = ("own", "joined", "foreign", "absent")
OF_A_DATASET = ("own", "edits", "runs", "reads", "foreign", "absent")
GRANTS = {"edits": Grant.EDITOR, "runs": Grant.ANALYST, "reads": Grant.VIEWER}
BY_TEAM = {f"{mode} by team": mode for mode in GRANTS}
NAMED_IN_THE_BODY = {"POST /api/images/upload", "POST /api/classifications/run"}
IN_BODIES = dict.fromkeys(NAMED_IN_THE_BODY, "dataset_id") | {"POST /api/datasets/{dataset_id}/transfer": "user_id"}
FOR_PROMOTERS = {"PUT /api/models/{name}/aliases/{alias}", "POST /api/models/{name}/retire"}
ELSEWHERE = {"WS /api/ws", "GET /api/live"}  # tests/api/test_live.py, test_live_stream.py
numbers = count(1)


def declared():
    """{route: {column: signs}}"""
    rows = [line.split() for line in TABLE.strip().splitlines()]
    return {f"{method} {path}": dict(zip(COLUMNS, signs, strict=True)) for method, path, *signs in rows}


def handlers_of(app):
    """(route, handler) of each method and path."""
    for route in app._router.routes:
        if isinstance(route, HTTPRoute):
            for method, (handler, _) in route.route_handler_map.items():
                if method not in {"OPTIONS", "HEAD"}:
                    yield f"{method} {route.path_format}", handler


def routes_of(app):
    """Every method and path that the running application has."""
    for route in app._router.routes:
        if isinstance(route, HTTPRoute):
            yield from (f"{method} {route.path_format}" for method in sorted(route.methods) if method not in {"OPTIONS", "HEAD"})
        else:
            yield f"WS {route.path_format}"


def about(route, column):
    """What a route can be about, for whom."""
    named = {part.strip("{}") for part in route.split("/") if part.startswith("{")}
    belongs = named & {"dataset_id", "image_id", "job_id", "result_id", "target_id"} or route in NAMED_IN_THE_BODY
    if not (named or belongs):
        return ("",)
    of_team = route.split()[1].startswith("/api/teams/")
    of_person = named in ({"user_id"}, {"session_id"}, {"user_id", "session_id"}, {"key_id"})
    if column in {"anonymous", *SERVICES} or not (belongs or of_team or of_person or route in FOR_PROMOTERS):
        return ("foreign", "absent")
    if route in FOR_PROMOTERS:
        return OF_A_MODEL
    if of_team:
        return OF_A_TEAM
    return OF_A_DATASET if belongs else ("own", "foreign", "absent")


class World:
    """People and things, made in the log itself: so much is needed that HTTP would take too long."""

    def __init__(self, api):
        self.api, self.given = api, api.services
        self.address = api.account()
        self.blob = self._stored(PICTURE)
        self.owner, self.friend = self.person(Role.RESEARCHER), self.person(Role.RESEARCHER)
        self._model("pbc8", SHA256)

    def _stored(self, data):
        writer = self.given.blobs.begin()
        writer.write(data)
        sha256, _ = writer.commit()
        self.given.blobs.put_derived(thumbnail_of(sha256, 2), data, "image/jpeg")
        return sha256

    def _model(self, name, sha256):
        version = model.Version(number=1, sha256=sha256, size=10, labels=LABELS, review_below=0.6, record="{}")
        added = model.add_version(model_id(name), None, name=name, description="", version=version, by=self.owner.id, at=utc_now())
        self._append(added)
        return model.evolve(model.evolve(None, added[0]), added[1])

    def model(self, person, mode):
        """What a route of one model needs: a new model, whose weights are stored. `how` the person stands to it."""
        if mode == "absent":
            return {"name": "none", "alias": "stable", "number": 1, "version": "1"}
        made = self._model(f"model{next(numbers)}", self.blob)
        if mode == "promoted":
            self._append(model.add_promoter(made, user=person.id, by=self.owner.id, at=utc_now()))
        return {"name": made.name, "alias": "stable", "number": 1, "version": "1"}

    def _append(self, events):
        system = Actor(id=system_actor("tests"), kind="system")
        self.position = self.given.log.append(Command(id=uuid4(), actor=system, at=utc_now()), *events).position

    def person(self, role):
        """Somebody signed in; nobody, or a service, for the other columns."""
        if role == "anonymous":
            return SimpleNamespace(id=uuid4(), headers={})
        if role in SERVICES:
            body = {"name": role, "scopes": frozenset({SERVICES[role]}), "seconds": 600, "at": utc_now()}
            return SimpleNamespace(id=uuid4(), headers=bearer(self.given.access_tokens.issue_service(**body)))
        who, there, name = uuid4(), uuid4(), f"person{next(numbers)}"
        names = {"email": f"{name}@example.org", "username": name, "first_name": "A", "last_name": "B"}
        registered = user.register(who, **names, role=Role(role), by=who, at=utc_now())
        self._append([registered])  # alone, since the session is encrypted with the data key that it makes
        self._append([session.start(there, user=who, address="", agent="", at=utc_now())])
        token = self.given.access_tokens.issue(user=who, session=there, role=Role(role), at=utc_now())
        return SimpleNamespace(id=who, headers=bearer(token), session=there)

    def things(self, person, mode):
        """An id for each name that a route may have. `how` the person stands to them."""
        if mode == "absent":
            nouns = ("dataset", "image", "job", "result", "device", "check", "target", "team", "key", "service", "session", "invitation")
            names = ("about", *(f"{noun}_id" for noun in nouns))
            return dict.fromkeys(names, uuid4()) | {
                "user_id": uuid4(),
                "name_or_id": "none",
                "kind": "None",
                "name": "none",
                "token": "none",
                "policy_scope": "job",
            }
        by = {"by": person.id if mode == "own" else self.owner.id, "at": utc_now()}
        ids = {name: uuid4() for name in ("dataset_id", "image_id", "job_id", "device_id")}
        group = self.team(person, mode)
        made = [dataset.create(ids["dataset_id"], name="cells", description=None, **by)]
        mine = dataset.evolve(None, made[0])
        if mode in GRANTS:
            made += dataset.share(mine, user=person.id, grant=GRANTS[mode], **by)
        if mode in BY_TEAM:
            made += dataset.share_with_team(mine, team=group, grant=GRANTS[BY_TEAM[mode]], **by)
        *job, chunk = self._job(ids, by)
        self._append([*made, *self._image(ids, by), *job, *self._device(ids, by)])
        self._append([chunk, *self._policy(ids, by)])
        account = person if mode == "own" else self.person(Role.RESEARCHER)
        signed = self._address(ids["image_id"], Holder(self.owner.session))
        also = {"about": ids["dataset_id"], "name_or_id": "pbc8", "kind": "ImageUploaded", "name": "plain.css"}
        result = result_id(ids["job_id"], ids["image_id"])
        also |= {"policy_scope": "job", "target_id": ids["job_id"], "team_id": group, "result_id": result, "check_id": self._check()}
        also |= {"user_id": account.id, "session_id": getattr(account, "session", uuid4()), "token": signed.rpartition("/")[2]}
        return ids | also | self._key(person.id if mode == "own" else self.owner.id) | {"invitation_id": self._invitation()}

    def dataset(self, person):
        made = dataset.create(uuid4(), name="other cells", description=None, by=person.id, at=utc_now())
        self._append([made])
        return made.originator_id

    def team(self, person, mode):
        """A team that the person owns, or is in, unless it is foreign."""
        made = team.create(uuid4(), name="Haematology", by=person.id if mode == "own" else self.owner.id, at=utc_now())
        self._append([made])
        if mode != "foreign":
            self._append(team.add_member(team.evolve(None, made), user=person.id, by=self.owner.id, at=utc_now()))
        return made.originator_id

    def _key(self, owner):
        """A personal key, and a service account."""
        service, key, by = uuid4(), uuid4(), {"by": owner, "at": utc_now()}
        made = service_account.create(service, name=f"scanner{next(numbers)}", **by)
        about = {"name": "uploads", "scopes": [Scope.IMAGES_READ], "datasets": None, "secret_hash": bytes(32)}
        self._append([made, api_key.issue(key, owner=owner, owner_kind=OwnerKind.USER, **about, **by)])
        return {"service_id": service, "key_id": key}

    def _invitation(self):
        invitation_id, email = uuid4(), f"invited{next(numbers)}@example.org"
        invited = invitation.invite(invitation_id, email=email, role=Role.VIEWER, request_id=uuid4(), by=self.owner.id, at=utc_now())
        self._append([invited])
        return invitation_id

    def _check(self):
        """A package of the owner's own waits for its check."""
        check = uuid4()
        self._append([model_check.upload(check, filename="x.zip", sha256=self.blob, size=10, by=self.owner.id, at=utc_now())])
        return check

    def packaged(self, mode):
        """What a route of a version with a package needs."""
        if mode == "absent":
            return {"name": "none", "number": 1}
        name = f"packaged{next(numbers)}"
        about = {"labels": LABELS, "review_below": 0.6, "record": "{}", "digest": SHA256, "package": self.blob}
        version = model.Version(number=1, sha256=SHA256, size=10, **about)
        self._append(model.add_version(model_id(name), None, name=name, description="", version=version, by=self.owner.id, at=utc_now()))
        return {"name": name, "number": 1}

    def _address(self, image_id, holder):
        about = {"filename": "x.jpg", "media_type": "image/jpeg", "inline": True, "seconds": 600}
        return self.given.blobs.signed_url(self.blob, image_id=image_id, holder=holder, **about)

    def _image(self, ids, by):
        facts = {"size": len(PICTURE), "media_type": "image/jpeg", "width": 64, "height": 48}
        uploaded = image.upload(ids["image_id"], dataset=ids["dataset_id"], device=None, filename="x.jpg", sha256=self.blob, **facts, **by)
        found = {
            "width": 64,
            "height": 48,
            "bands": 3,
            "dtype": "uint8",
            "pages": 1,
            "axes": "YXS",
            "pixel_size_um": None,
            "reader": 2,
            "warnings": (),
        }
        return [uploaded, *image.accept(image.evolve(None, uploaded), image.Inspection(**found), **by)]

    def _job(self, ids, by):
        pinned = {"model_id": model_id("pbc8"), "model_name": "pbc8", "model_version": 1, "model_sha256": SHA256, "threshold": 0.5}
        planned = PlannedImage(ids["image_id"], self.blob)
        events = classification.request(ids["job_id"], dataset=ids["dataset_id"], image=planned, **pinned, **by)
        job = None
        for event in events:
            job = classification.evolve(job, event)
        observed = ImageResult(
            image_id=ids["image_id"], sha256=self.blob, label="round", confidence=0.9, verdict=Verdict.CLEAR, scores=(0.9, 0.1)
        )
        return [
            *events,
            classification.record_chunk(
                job, 0, plan=events[-1], labels=LABELS, results=(observed,), failures=(), provenance=provenance(SHA256), **by
            ),
        ]

    def _policy(self, ids, by):
        """Of the job. tests/api/test_policies.py has those of datasets and models."""
        about_it = {"scope": PolicyScope.JOB, "target": ids["job_id"], "dataset": ids["dataset_id"], "reason": "A trial"}
        return policy.set_policy(None, **about_it, rules=PolicyRules(review_below=0.9), **by)

    def cancel(self, job):
        state = self.given.log.load(job, classification.evolve)
        self._append([classification.cancel(state, by=self.owner.id, at=utc_now())])

    def _device(self, ids, by):
        about_it = {"name": "scope", "hostname": f"scope{next(numbers)}", "location": None, "firmware_version": None}
        return [device.register(ids["device_id"], **about_it, **by)]

    def body(self, route, things):
        name = f"person{next(numbers)}"
        match route:
            case "POST /api/auth/register":
                names = {"email": f"{name}@example.org", "username": name, "first_name": "A", "last_name": "B"}
                return {"json": names | {"password": PASSWORD}}
            case "POST /api/auth/accept-invitation" | "POST /api/auth/bootstrap":
                names = {"username": name, "first_name": "A", "last_name": "B", "password": PASSWORD}
                return {"json": names | ({"email": f"{name}@example.org"} if route.endswith("bootstrap") else {}) | {"token": "bsl_none"}}
            case "POST /api/auth/verify" | "POST /api/auth/reset-password":
                return {"json": {"token": "bsl_none", "password": PASSWORD}}
            case "POST /api/auth/confirm-email":
                return {"json": {"token": "bsl_none"}}
            case "POST /api/auth/verification" | "POST /api/auth/forgot-password" | "POST /api/invitations":
                return {"json": {"email": f"{name}@example.org"}}
            case "POST /api/auth/login":
                return {"json": {"email": self.address, "password": PASSWORD}}
            case "POST /api/auth/login-swagger":
                return {"data": {"username": self.address, "password": PASSWORD}}
            case "POST /api/datasets":
                return {"json": {"name": "cells"}}
            case "POST /api/service-accounts":
                return {"json": {"name": name}}
            case "POST /api/keys/{key_id}/rotate":
                return {"json": {}}
            case _ if route.startswith("POST") and route.endswith("/keys"):
                return {"json": {"name": "uploads", "scopes": ["images:read"]}}
            case "POST /api/devices":
                return {"json": {"name": "scope", "hostname": name}}
            case "POST /api/classifications/run":
                return {"json": {"dataset_id": str(things["dataset_id"])}}
            case "POST /api/images/upload":
                return {"data": {"dataset_id": str(things["dataset_id"])}, "files": {"file": ("x.jpg", PICTURE, "image/jpeg")}}
            case "POST /api/models":
                return {"content": b"PK", "headers": {"Content-Type": "application/zip"}}
            case "POST /api/models/external":
                return {"json": {"name": name, "labels": ["round", "flat"]}}
            case "PUT /api/models/{name}/aliases/{alias}":
                return {"json": {"version": 1, "reason": "Validated"}}
            case "POST /api/models/{name}/retire":
                return {"json": {"reason": "Old"}}
            case "PUT /api/policies/{policy_scope}/{target_id}":
                return {"json": {"rules": {"review_below": 0.8}, "reason": "Too many false alarms"}}
            case "DELETE /api/policies/{policy_scope}/{target_id}":
                return {"json": {"reason": "Not needed"}}
            case "POST /api/policies/{policy_scope}/{target_id}/preview":
                return {"json": {"rules": {"review_below": 0.8}}}
            case _ if route.startswith("POST") and not route.startswith("POST /api/"):
                return {"data": {"x": "x"}}
            case _ if route.endswith("/infer"):
                return {"json": {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64encode(PICTURE).decode()]}]}}
            case _ if route.startswith("PUT") and "/shares/" in route:
                return {"json": {"grant": "viewer"}}
            case "POST /api/datasets/{dataset_id}/shares":
                return {"json": {"email": self.address, "grant": "viewer"}}
            case "POST /api/datasets/{dataset_id}/transfer":
                return {"json": {"user_id": str(self.friend.id)}}
            case "POST /api/teams":
                return {"json": {"name": "Haematology"}}
            case "POST /api/teams/{team_id}/members":
                return {"json": {"email": self.address}}
            case _ if route.startswith("PATCH"):
                return {"json": PATCHES[route.rpartition("{")[2].partition("_")[0] + route.rpartition("}")[2]]}
            case _:
                return {}


PATCHES = {
    "dataset": {"name": "other"},
    "image": {"filename": "other.jpg"},
    "device": {"name": "other"},
    "device/status": {"is_online": True},
    "team": {"name": "Blood laboratory"},
    "user": {"phone": "1"},
}


def _with(headers, body):
    return body | {"headers": body.get("headers", {}) | headers}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def sign_of(answer):
    return "+" if answer.is_success else SIGNS.get(answer.status_code, str(answer.status_code))


class Asking:
    """Each cell of the table: who asks, and about what. People and things are used again until a request has changed them."""

    def __init__(self, world):
        self.world, self.http = world, world.api.anonymous()
        self._people, self._things = {}, {}

    async def cell(self, route, column, mode, *, key=""):
        """The answer, with the session of the person, or with a key of all scopes that is limited to "this one", "another" or "none"."""
        person, things = self._chosen(column, mode)
        if "/shares/" in route or "/members/" in route:
            things = things | {"user_id": self.world.friend.id}
        if "/shares/teams/" in route:
            things = things | {"team_id": self.world.team(person, "joined")}
        if "/promoters/teams/" in route:
            things = things | {"team_id": self.world.team(self.world.owner, "own")}
        if route.endswith("/checks"):
            things = things | self.world.packaged(mode)
        elif route.endswith("/retry") and mode != "absent":
            self.world.cancel(things["job_id"])
        elif "/models/{name}" in route:
            things = things | self.world.model(person, mode)
        self.http.cookies.clear()
        await self.world.given.read_position.wait(self.world.position, 5)
        method, path = route.split()
        headers = await self._key(person, things, key) if key else person.headers
        answer = await self.http.request(method, path.format(**things), **_with(headers, self.world.body(route, things)))
        if method != "GET" and answer.is_success:
            self._forget(column)
        return answer

    async def _key(self, person, things, limit):
        """A personal access token, issued by the person. The other dataset of a limited one is the person's own."""
        datasets = {"this one": things["dataset_id"], "another": self.world.dataset(person) if limit == "another" else None}.get(limit)
        await self.world.given.read_position.wait(self.world.position, 5)
        limited = {} if datasets is None else {"dataset_ids": [str(datasets)]}
        issued = await self.http.post(
            "/api/keys", headers=person.headers, json={"name": "script", "scopes": sorted(set(Scope) - {Scope.METRICS_READ})} | limited
        )
        assert issued.status_code == 201, issued.text
        return bearer(issued.json()["key"])

    def _chosen(self, column, mode):
        if column not in self._people:
            self._people[column] = self.world.person(column)
        if (column, mode) not in self._things:
            self._things[column, mode] = self.world.things(self._people[column], mode)
        return self._people[column], self._things[column, mode]

    def _forget(self, column):
        del self._people[column]
        self._things = {place: things for place, things in self._things.items() if place[0] != column}


@pytest.fixture
def world(api):
    return World(api.with_services(predictor=MemoryPredictor()))


async def test_every_cell_of_every_route_is_as_declared(world, capsys):
    table = declared()
    assert set(routes_of(world.api.app)) - ELSEWHERE == set(table), "a route without a row, or a row without a route"
    asking, cells, wrong = Asking(world), 0, []
    for route, columns in table.items():
        found = {}
        for column in COLUMNS:
            answers = {mode: await asking.cell(route, column, mode) for mode in about(route, column)}
            found[column] = "".join(sign_of(answer) for answer in answers.values())
            cells += len(answers)
            if column is not Role.ADMIN and len(answers) > 1 and found[column][-2] == found[column][-1]:
                assert visible_to(answers["foreign"]) == visible_to(answers["absent"]), (route, column)
        if found != columns:
            wrong.append(f"{route} {' '.join(found.values())}")
    assert not wrong, "\n".join(["not as declared:", *wrong])
    with capsys.disabled():
        print(f" {cells} cells of {len(table)} routes", end=" ")


async def test_a_grant_by_a_team_counts_as_the_same_grant_given_directly(world, capsys):
    asking, cells, wrong = Asking(world), 0, []
    for route, columns in declared().items():
        for role in set(Role) - {Role.ADMIN}:
            if about(route, role) == OF_A_DATASET:
                wanted = dict(zip(OF_A_DATASET, columns[role], strict=True))
                for mode, directly in BY_TEAM.items():
                    found = sign_of(await asking.cell(route, role, mode))
                    cells += 1
                    if found != wanted[directly]:
                        wrong.append(f"{route} {role}, {mode}: {found} instead of {wanted[directly]}")
    assert not wrong, "\n".join(wrong)
    with capsys.disabled():
        print(f" {cells} cells", end=" ")


async def test_an_id_that_is_none_names_nothing_whoever_asks(world, capsys):
    people, cells = {column: world.person(column) for column in COLUMNS}, 0
    http = world.api.anonymous()
    for route in declared():
        method, path = route.split()
        for place in set(re.findall(r"{(\w+_id)}", path)) - {"name_or_id"}:
            ids = {name: uuid4() for name in re.findall(r"{(\w+)}", path)} | {"policy_scope": "job", "name": "pbc8", "alias": "stable"}
            for column, person in people.items():
                for wrong in ("not-an-id", "..%2f", f"{uuid4()}0")[: None if column == "anonymous" else 1]:
                    http.cookies.clear()
                    address = path.format(**ids | {place: wrong})
                    answer = await http.request(method, address, **_with(person.headers, world.body(route, {"dataset_id": uuid4()})))
                    assert (answer.status_code, wrong in answer.text) == (404, False), (route, place, column, wrong)
                    cells += 1
    for route, field in IN_BODIES.items():
        method, path = route.split()
        things = world.things(world.owner, "own")
        for role in set(Role) - {Role.VIEWER}:
            body = world.body(route, things)
            (kind,) = body.keys() & {"json", "data"}
            sent = _with(people[role].headers, body | {kind: body[kind] | {field: "1"}})
            answer = await http.request(method, path.format(**things), **sent)
            assert (answer.status_code, answer.json()["errors"][0]["loc"][-1]) == (422, field), (route, role)
            cells += 1
    with capsys.disabled():
        print(f" {cells} cells", end=" ")


async def test_a_key_reaches_what_its_owner_reaches_and_its_list_of_datasets_allows(world, capsys):
    """tests/api/test_key_access.py tries every scope with every route."""
    asking, cells, wrong = Asking(world), 0, []
    for route, handler in handlers_of(world.api.app):
        if "scope" not in handler.opt or route in ELSEWHERE or about(route, Role.RESEARCHER) != OF_A_DATASET:
            continue
        wanted = dict(zip(OF_A_DATASET, declared()[route][Role.RESEARCHER], strict=True))
        for mode in ("own", "runs by team", "foreign", "absent"):
            for limit in (None, "this one", "another") if mode in {"own", *BY_TEAM} else (None,):
                found = sign_of(await asking.cell(route, Role.RESEARCHER, mode, key=limit or "none"))
                expected = wanted["foreign"] if limit == "another" else wanted[BY_TEAM.get(mode, mode)]
                cells += 1
                if found != expected:
                    wrong.append(f"{route} {mode}, key limited to {limit}: {found} instead of {expected}")
    assert not wrong, "\n".join(wrong)
    with capsys.disabled():
        print(f" {cells} cells", end=" ")


def visible_to(answer):
    """All that a client can tell one answer from another by, but for the request's own id."""
    body = {} if not answer.content else answer.json()
    if isinstance(body, dict):
        body.pop("instance", None)
    headers = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "x-event-position"}}
    return answer.status_code, headers, body


def test_what_is_foreign_is_declared_as_what_is_absent():
    compared = {
        (route, role): columns[role][-2:]
        for route, columns in declared().items()
        for role in set(Role) - {Role.ADMIN}
        if about(route, role) in {OF_A_DATASET, OF_A_TEAM, ("own", "foreign", "absent")}
    }
    assert compared
    assert {place: answers for place, answers in compared.items() if answers[0] != answers[1]} == {}


async def test_no_list_tells_of_what_is_foreign(world):
    foreign = world.things(world.owner, "own")
    people = {role: world.person(role) for role in (Role.VIEWER, Role.ANALYST, Role.RESEARCHER, "images", "events")}
    await world.given.read_position.wait(world.position, 5)
    hidden = [str(foreign[name]) for name in ("dataset_id", "image_id", "job_id", "result_id")]
    http = world.api.anonymous()
    lists = [route.split()[1] for route, columns in declared().items() if route.startswith("GET") and columns[Role.VIEWER] in {"+", "-"}]
    assert len(lists) > 10
    for path in lists:
        for column, person in people.items():
            if (path, column) in {("/api/events", "events"), ("/api/images", "images")}:
                continue  # which is what its scope names
            answer = await http.get(path, headers=person.headers)
            assert not [one for one in hidden if one in answer.text], (path, column)
    for path in ("/api/images", "/api/classifications", "/api/classification-results"):
        for name in ("dataset_id", "image_id", "classification_id", "uploaded_by", "created_by"):
            value = {"classification_id": foreign["job_id"], "uploaded_by": world.owner.id, "created_by": world.owner.id}.get(
                name, foreign.get(name)
            )
            answer = await http.get(f"{path}?{name}={value}", headers=people[Role.RESEARCHER].headers)
            assert (answer.status_code, answer.json()) == (200, []), (path, name)


async def test_a_grant_ends_when_it_is_withdrawn_and_when_the_dataset_is_deleted(world):
    http, reader = world.api.anonymous(), world.person(Role.VIEWER)
    things = world.things(reader, "reads")
    await world.given.read_position.wait(world.position, 5)
    paths = [f"/api/datasets/{things['dataset_id']}", f"/api/images/{things['image_id']}", f"/api/classifications/{things['job_id']}"]
    assert [(await http.get(path, headers=reader.headers)).status_code for path in paths] == [200] * 3
    gone = await http.delete(f"{paths[0]}/shares/{reader.id}", headers=world.owner.headers)
    assert gone.status_code == 204
    assert [(await http.get(path, headers=reader.headers)).status_code for path in paths] == [404] * 3
    assert (await http.delete(paths[0], headers=world.owner.headers)).status_code == 204
    assert [(await http.get(path, headers=world.owner.headers)).status_code for path in paths] == [404] * 3


async def test_a_role_in_a_token_is_not_believed(world):
    who = world.person(Role.VIEWER)
    claims = world.given.access_tokens.verify(who.headers["Authorization"].split()[1], at=utc_now())
    claimed = world.given.access_tokens.issue(user=claims.subject, session=claims.session_id, role=Role.ADMIN, at=utc_now())
    other = world.given.access_tokens.issue(user=uuid4(), session=claims.session_id, role=Role.ADMIN, at=utc_now())
    nowhere = world.given.access_tokens.issue(user=claims.subject, session=uuid4(), role=Role.ADMIN, at=utc_now())
    http = world.api.anonymous()
    assert (await http.get("/api/users/users", headers=bearer(claimed))).status_code == 403
    for token in (other, nowhere):
        assert (await http.get("/api/users/me", headers=bearer(token))).status_code == 401


async def test_a_service_may_do_only_what_its_scopes_name(world):
    http = world.api.anonymous()
    things = world.things(world.owner, "own")
    await world.given.read_position.wait(world.position, 5)
    picture = f"/api/images/{things['image_id']}/download"
    for scopes, statuses in (((), (403, 403)), (("images:write", "*"), (403, 403)), (tuple(Scope), (200, 200))):
        token = world.given.access_tokens.issue_service(name="x", scopes=frozenset(scopes), seconds=600, at=utc_now())
        assert tuple([(await http.get(path, headers=bearer(token))).status_code for path in (picture, "/api/events")]) == statuses
    ended = world.given.access_tokens.issue_service(name="x", scopes=frozenset(Scope), seconds=-60, at=utc_now())
    assert (await http.get(picture, headers=bearer(ended))).status_code == 401


def test_the_scopes_of_the_command_line_are_all_that_there_are():
    from api.cli.admin.tokens import create_token

    (option,) = [parameter for parameter in create_token.params if parameter.name == "scopes"]
    assert set(option.type.choices) == set(Scope)
