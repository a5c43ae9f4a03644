"""The whole system, for tests that attack a running one."""

from tests.system.conftest import admin, own_stack, researcher, stack, system

__all__ = ["admin", "own_stack", "researcher", "stack", "system"]
