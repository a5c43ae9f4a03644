"""All routes of the API. The documentation pages are in api/documents/pages.py."""

from typing import Any

from api import health
from api.accounts import Users
from api.api_keys import Keys
from api.audit import Audit, AuditTrail
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
from api.open_sessions import OpenSessions, SessionsOfUsers
from api.policies import Policies, PoliciesOfResults
from api.previews import Previews
from api.registrations import Registrations
from api.results import Results
from api.service_accounts import ServiceAccounts
from api.sessions import Sessions
from api.statistics import Statistics
from api.teams import Teams

ROUTES: tuple[Any, ...] = (
    health.live,
    health.ready,
    health.metrics,
    Sessions,
    OpenSessions,
    SessionsOfUsers,
    Users,
    Keys,
    ServiceAccounts,
    Registrations,
    Invitations,
    Devices,
    Teams,
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
    AuditTrail,
    Audit,
    hub.live,
    hub.stream,
)
