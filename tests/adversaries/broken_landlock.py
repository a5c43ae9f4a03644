"""A module for the fork server: its children cannot enter Landlock, although the probe succeeded."""

from infrastructure.sandbox import kernel, landlock, seccomp

instructions = (
    seccomp._Instruction(seccomp.LOAD, 0, 0, seccomp.NUMBER_OFFSET),
    seccomp._Instruction(seccomp.JUMP_IF_EQUAL, 0, 1, landlock.RESTRICT_SELF),
    seccomp._Instruction(seccomp.RETURN, 0, 0, seccomp.REFUSE),
    seccomp._Instruction(seccomp.RETURN, 0, 0, seccomp.ALLOW),
)
program = seccomp._Program(len(instructions), (seccomp._Instruction * len(instructions))(*instructions))
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
kernel.prctl(kernel.PR_SET_SECCOMP, seccomp.MODE_FILTER, kernel.ctypes.byref(program))
