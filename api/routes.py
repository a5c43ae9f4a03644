"""All routes of the API. The documentation pages are in api/documents/pages.py."""

from typing import Any

from api import health
from api.accounts import Users
from api.audit import Audit
from api.blobs import blob
from api.classifications import Classifications
from api.datasets import Datasets
from api.devices import Devices
from api.events import Events
from api.images import Images
from api.invitations import Invitations
from api.kserve.routes import Inference
from api.live import hub
from api.model_checks import ModelChecks
from api.models import Models
from api.policies import Policies, PoliciesOfResults
from api.previews import Previews
from api.registrations import Registrations
from api.results import Results
from api.sessions import Sessions
from api.statistics import Statistics

ROUTES: tuple[Any, ...] = (
    health.live,
    health.ready,
    health.metrics,
    Sessions,
    Registrations,
    Users,
    Invitations,
    Devices,
    Datasets,
    Images,
    Previews,
    blob,
    Models,
    ModelChecks,
    Classifications,
    Results,
    Policies,
    PoliciesOfResults,
    Statistics,
    Inference,
    Events,
    Audit,
    hub.live,
    hub.stream,
)
