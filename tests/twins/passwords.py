"""The in-memory twin of password hashing: fast, with one strength at a time."""

import hashlib


class MemoryPasswords:
    """Behaves like `infrastructure.security.passwords.Argon2Passwords`, without the cost and the queue."""

    def __init__(self, *, strength=1):
        self.strength = strength

    def hash(self, password, *, requester):
        return b"%d:" % self.strength + hashlib.sha256(password.encode()).digest()

    def verify(self, password, known, *, requester):
        return known is not None and known.partition(b":")[2] == hashlib.sha256(password.encode()).digest()

    def outdated(self, known):
        return int(known.partition(b":")[0]) < self.strength
