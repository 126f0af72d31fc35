"""The calls of Linux that Python does not have: prctl(2) and capset(2). For the calling thread only."""

import ctypes
import os
import resource
import signal
import struct
from typing import Final

CAP_SETPCAP, CAP_NET_ADMIN = 8, 12  # linux/capability.h
NOBODY: Final = 65534  # the overflow user and group of Linux

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 4, 8  # linux/prctl.h
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3: Final = 0x20080522  # linux/capability.h


def library() -> ctypes.CDLL:
    """The C library, with errno kept."""
    return ctypes.CDLL(None, use_errno=True)


def check(result: int) -> int:
    """``result`` of a C call. Raises OSError where it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def die_with_parent(parent: int) -> bool:
    """Have the kernel end this process when its parent ends. False where the parent is gone already.

    The setting is lost when the user changes, so it comes after :func:`become`.
    """
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    return os.getppid() == parent


def become(user: int, group: int) -> None:
    """Be that user with that one group, for good. Permitted capabilities stay until :func:`keep_only`.

    Raises OSError (EPERM: not root; EINVAL: a user namespace without that user).
    """
    _prctl(_PR_SET_KEEPCAPS, 1)
    try:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    finally:
        _prctl(_PR_SET_KEEPCAPS, 0)


def keep_only(*capabilities: int) -> None:
    """Hold these capabilities, as far as they are permitted, and none besides; hand none on to a program.

    Raises OSError.
    """
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    mask = sum(1 << number for number in capabilities) & permitted()
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    sets = struct.pack("=6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable: low, high
    check(library().capset(header, ctypes.create_string_buffer(sets)))


def bound_to(*capabilities: int) -> None:
    """Never be able to gain any other capability. Raises OSError.

    Without CAP_SETPCAP it does nothing: :func:`no_new_privileges` alone keeps others from being gained.
    """
    if not permitted() >> CAP_SETPCAP & 1:
        return
    libc, number = library(), 0
    while (there := libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)) != -1:  # EINVAL after the last one
        if there and number not in capabilities:
            _prctl(_PR_CAPBSET_DROP, number)
        number += 1


def permitted() -> int:
    """The permitted capabilities of this thread as a bit mask."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    sets = ctypes.create_string_buffer(24)
    check(library().capget(header, sets))
    _, low, _, _, high, _ = struct.unpack("=6I", sets.raw[:24])
    return int(high << 32 | low)


def no_new_privileges() -> None:
    """No program that this process starts has more rights than it. Raises OSError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def no_core_no_tracing() -> None:
    """Memory with keys is not for a core dump, nor for a debugger of the same user. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, argument: int) -> None:
    rest = [ctypes.c_ulong(value) for value in (argument, 0, 0, 0)]
    check(library().prctl(option, *rest))
