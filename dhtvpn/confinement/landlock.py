"""Landlock (landlock(7), linux/landlock.h): name the places that remain, and all others are gone.

It works without privileges, for root too, and cannot be undone. Open descriptors stay as they are.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dhtvpn.confinement import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
_VERSION_FLAG, _RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 1, 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_REG, MAKE_SOCK = 1 << 8, 1 << 9
TRUNCATE: Final = 1 << 14

READ: Final = READ_FILE | READ_DIR
"""Look into directories and read files."""
KEEP: Final = READ | WRITE_FILE | TRUNCATE | MAKE_REG | REMOVE_FILE
"""Make, replace and remove plain files: no links, devices or directories."""

_ALL_BY_ABI: Final = {1: 13, 2: 14, 3: 15, 5: 16}  # how many rights the file system has since that version
_ONLY_FILE_RIGHTS: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
_NET_BIND_TCP: Final = 1  # since 4
_SCOPED: Final = 0b11  # abstract Unix sockets and signals, since 6


def version() -> int:
    """The ABI version of this kernel's Landlock; 0 where it has none or it is turned off."""
    return max(0, int(kernel.library().syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)))


def restrict(places: Iterable[tuple[Path, int]], tcp_ports: Iterable[int] = ()) -> None:
    """Leave to this thread the ``places`` with their rights, no other file or directory, of TCP ports only
    ``tcp_ports`` to listen on, and, where the kernel can, no signal or abstract socket of a process outside.

    A place that does not exist is left out. Raises OSError (ENOSYS, EOPNOTSUPP: no Landlock here).
    """
    libc, abi = kernel.library(), version()
    bits = max((count for since, count in _ALL_BY_ABI.items() if since <= abi), default=13)
    handled = (1 << bits) - 1
    attributes = struct.pack("=QQQ", handled, _NET_BIND_TCP if abi >= 4 else 0, _SCOPED if abi >= 6 else 0)[
        : 24 if abi >= 6 else 16 if abi >= 4 else 8
    ]
    ruleset = kernel.check(
        libc.syscall(_CREATE_RULESET, ctypes.create_string_buffer(attributes), len(attributes), 0)
    )
    try:
        for path, rights in places:
            _allow(libc, ruleset, path, rights & handled)
        for port in tcp_ports if abi >= 4 else ():
            rule = ctypes.create_string_buffer(struct.pack("=QQ", _NET_BIND_TCP, port))
            kernel.check(libc.syscall(_ADD_RULE, ruleset, _RULE_NET_PORT, rule, 0))
        kernel.check(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        if not path.is_dir():
            rights &= _ONLY_FILE_RIGHTS
        rule = struct.pack("=Qi", rights, place)
        kernel.check(
            libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.create_string_buffer(rule), 0)
        )
    finally:
        os.close(place)
