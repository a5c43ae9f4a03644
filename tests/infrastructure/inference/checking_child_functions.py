"""A child function that checks packages which say themselves what it answers, or how it breaks."""

import os
import time
from hashlib import sha256

import msgspec

from infrastructure.inference.children.fork_server import borrow
from infrastructure.inference.package_answers import CheckedPackage, RefusedPackage

DEADLY, STUCK, BUGGY, GREEDY, LYING = b"deadly", b"stuck", b"buggy", b"greedy", b"lying"


def check_model(package: str, provider: str) -> CheckedPackage | RefusedPackage | str:
    data = bytes(borrow(package))
    if sha256(data).hexdigest() != package:
        raise RuntimeError("another package was lent")
    match data:
        case b"deadly":
            os.abort()
        case b"stuck":
            time.sleep(1000)
        case b"buggy":
            raise RuntimeError("a bug")
        case b"greedy":
            return str(len(bytearray(2**40)))
        case b"lying":
            return "all is well"
    return msgspec.json.decode(data, type=CheckedPackage | RefusedPackage)
