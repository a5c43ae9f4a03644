"""The in-memory twin of password hashing: fast, with one strength at a time. It counts what would be slow."""

import hashlib
import itertools

from domain.errors import Invalid
from infrastructure.security.common_passwords import is_common


class MemoryPasswords:
    """Behaves like `infrastructure.security.passwords.Argon2Passwords`, without the cost and the queue.

    `computed` counts the hashes that were computed.
    """

    def __init__(self, *, strength=1, service_names=("BioScopeAI Core", "scope.example.org")):
        self.strength, self.service_names = strength, service_names
        self.computed = 0
        self._salts = itertools.count()

    def is_common(self, password):
        return is_common(password)

    def hash(self, password, *, requester, like=None):
        if len(_bytes(password)) > 1024:
            raise Invalid("password: must have at most 1024 bytes")
        form = _form(like) if like is not None else None
        return self._computed(password, form or b"%d:%d" % (self.strength, next(self._salts)))

    def verify(self, password, known, *, requester):
        return self.matching(password, () if known is None else (known,), requester=requester) is not None

    def matching(self, password, candidates, *, requester):
        form = next((form for form in map(_form, candidates) if form), b"1:none")
        computed = self._computed(password, form)
        return candidates.index(computed) if computed in candidates else None

    def outdated(self, known):
        return int(known.partition(b":")[0]) < self.strength

    def _computed(self, password, form):
        self.computed += 1
        return form + b":" + hashlib.sha256(form + _bytes(password)).digest()


def _form(known):
    """The strength and salt of a hash. None for anything else."""
    parts = known.split(b":", 2)
    return b":".join(parts[:2]) if len(parts) == 3 and parts[0].isdigit() else None


def _bytes(password):
    return password.encode(errors="surrogatepass")
