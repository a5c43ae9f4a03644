"""The exit codes of the command line; docs/commands.md lists them."""

from typing import Final

FAILED: Final = 1
WRONG_USE: Final = 2
ALREADY_RUNNING: Final = 3
TAMPERED: Final = 4
AWAY: Final = 5

MEANINGS: Final = {
    0: "done",
    FAILED: "failed",
    WRONG_USE: "wrong command line, or a wrong setting",
    ALREADY_RUNNING: "another process uses the data folder",
    TAMPERED: "the log was changed after it was written, or breaks a rule",
    AWAY: "a server that is needed does not answer",
}
