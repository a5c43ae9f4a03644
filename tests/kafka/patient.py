"""The projector as it is, but for the store: that is not read while there is a Kafka, however long it takes to deliver."""

from api.cli import main
from projections.engine import subscription

if __name__ == "__main__":
    subscription.OWNER_TIMEOUT_SECONDS = subscription.STANDBY_TIMEOUT_SECONDS = 3600.0
    main()
