"""The projector as it is, but for the store: that is not read while there is a Kafka, however long it takes to deliver."""

from functools import partialmethod

from api.cli import main
from projections.engine.subscription import CatchUpSubscription, SubscriptionLimits

PATIENT = SubscriptionLimits(owner_timeout_seconds=3600.0, standby_timeout_seconds=3600.0)

if __name__ == "__main__":
    CatchUpSubscription.__init__ = partialmethod(CatchUpSubscription.__init__, limits=PATIENT)
    main()
