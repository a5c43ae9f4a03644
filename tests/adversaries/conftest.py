"""The whole system, for adversaries that need one."""

from tests.system.conftest import admin, own_stack, researcher, stack, system

__all__ = ["admin", "own_stack", "researcher", "stack", "system"]
