"""End a process in time."""

import logging
import os
import sys
import threading

import structlog

log = structlog.get_logger()


def exit_within(seconds: float) -> None:
    """End this process after `seconds` at the latest, even if a library hangs. Only for processes that lose nothing when killed."""
    deadline = threading.Timer(seconds, _exit, (seconds,))
    deadline.daemon = True
    deadline.start()


def _exit(seconds: float) -> None:
    log.error("did not end by itself", seconds=seconds)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
