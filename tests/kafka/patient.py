"""The projector as it is, but for the store: that is not read while there is a Kafka, however long it takes to deliver."""

from api.cli import main
from projections.engine import subscription

if __name__ == "__main__":
    subscription.PATIENCE = subscription.STANDBY_PATIENCE = 3600.0
    main()
