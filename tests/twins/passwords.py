"""The in-memory twin of password hashing: fast, with one strength at a time. It counts what would be slow."""

import hashlib
from itertools import count


class MemoryPasswords:
    """Behaves like `infrastructure.security.passwords.Argon2Passwords`, without the cost and the queue. A hash names strength and salt."""

    def __init__(self, *, strength=1):
        self.strength, self.computed = strength, 0
        self._salts = count(1)

    def hash(self, password, *, requester, like=None):
        return self._hashed(password, like or b"%d:%d:" % (self.strength, next(self._salts)))

    def matching(self, password, candidates, *, requester):
        computed = self._hashed(password, candidates[0] if candidates else b"0:0:")
        return candidates.index(computed) if computed in candidates else None

    def verify(self, password, known, *, requester):
        return self.matching(password, [] if known is None else [known], requester=requester) is not None

    def outdated(self, known):
        return int(known.partition(b":")[0]) < self.strength

    def _hashed(self, password, like):
        self.computed += 1
        strength, salt, _ = like.split(b":", 2)
        return b"%b:%b:%b" % (strength, salt, hashlib.sha256(salt + password.encode(errors="surrogatepass")).hexdigest().encode())
