"""Why the relay stops, or starts over."""


class Fenced(Exception):
    """Another relay has taken over."""


class TopicReset(Exception):
    """The topic is not the one that was published to: it is in another cluster, or was created anew."""


class Unpublishable(Exception):
    """Kafka refuses an event for good. An operator must decide: later events must not be published before it."""


class CheckpointBeyondLog(Unpublishable):
    """The log has no event at the relay's checkpoint: somebody else changed the checkpoint, or the log was cut off."""
