"""Errors that make the relay stop or restart publishing."""


class Fenced(Exception):
    """Another relay has taken over."""


class TopicReset(Exception):
    """The topic is not the one that was published to: it is in another cluster, or was created again."""


class Unpublishable(Exception):
    """Kafka refuses an event permanently. An operator must act, since later events must not be published before it."""


class CheckpointBeyondLog(Unpublishable):
    """The log has no event at the relay's checkpoint: the checkpoint was changed, or the log was truncated."""
