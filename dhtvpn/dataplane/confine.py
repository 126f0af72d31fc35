"""Give up what the engine does not need: it has its descriptors and opens nothing any more.

Each step is tried on its own; what the system refuses is left, for the engine works all the same.
"""

import contextlib
import ctypes
import os
import resource
import signal
import struct
from typing import Final

NOBODY: Final = 65534  # the overflow user and group of Linux

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h


def die_with_parent(parent: int) -> bool:
    """Have the kernel end this process when its parent ends. False where the parent is gone already.

    The setting is lost when the user changes, so it comes after :func:`drop_privileges`.
    """
    _libc().prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    return os.getppid() == parent


def drop_privileges() -> None:
    """Become nobody if root, drop every capability, never gain one again, and leave no core dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a user namespace without that user
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    libc = _libc()
    header = ctypes.create_string_buffer(struct.pack("=II", _CAPABILITY_VERSION_3, 0))
    libc.capset(header, ctypes.create_string_buffer(24))  # effective, permitted, inheritable: none
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # the keys are not for a debugger of the same user


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
