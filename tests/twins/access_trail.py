"""The in-memory twin of the trail of access."""


class MemoryAccessTrail:
    """Behaves like `infrastructure.audit.access_log.AccessLog`, without a budget. `records` are in order."""

    def __init__(self):
        self.records = []

    def record(self, access):
        self.records.append(access)
