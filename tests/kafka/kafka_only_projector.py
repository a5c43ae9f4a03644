"""The projector without catch-up from the store while there is a Kafka, however slow it is."""

import os

from infrastructure.configuration.settings import load
from infrastructure.observability.log_setup import configure_logging
from projections.engine.subscription import SubscriptionLimits
from projections.process.main import run_projector

PATIENT = SubscriptionLimits(owner_timeout_seconds=3600.0, standby_timeout_seconds=3600.0)

if __name__ == "__main__":
    settings = load(os.environ)
    configure_logging(settings, "projector")
    run_projector(settings, subscription_limits=PATIENT)
