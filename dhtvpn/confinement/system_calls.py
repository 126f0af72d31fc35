"""A seccomp filter (seccomp(2)): no other program, no debugger, no mount, no namespace, no Unix socket.

Landlock does not say who may connect to a Unix socket in the file system, and root's services trust the user
root by its number alone. So a process that has to stay root must not be able to knock there.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import Final

from dhtvpn.confinement import kernel

_SET_MODE_FILTER, _FLAG_SPEC_ALLOW = 1, 1 << 2  # linux/seccomp.h; the flag keeps old kernels from slowing us
_ALLOW, _REFUSE, _NOT_HERE = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_NUMBER, _ARCHITECTURE, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24  # struct seccomp_data, little-endian
_X32: Final = 0x40000000  # asm/unistd.h: a second set of numbers on x86-64
_NEW_NAMESPACES: Final = 0x7E020000  # linux/sched.h: every CLONE_NEW* flag of clone(2)
_AF_UNIX, _SOCK_DGRAM, _SOCK_TYPES = 1, 2, 0xF
_CLONE3: Final = 435

# asm/unistd.h, by platform.machine(): the number for AUDIT_ARCH (linux/audit.h), and those of the calls.
_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_SOCKET: Final = {"x86_64": 41, "aarch64": 198}
_SOCKETPAIR: Final = {"x86_64": 53, "aarch64": 199}
_CLONE: Final = {"x86_64": 56, "aarch64": 220}
_REFUSED: Final[dict[str, tuple[int, int]]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
}


def restrict() -> None:
    """Refuse these calls to this thread from now on; it has to have no-new-privileges.

    Raises OSError (ENOSYS: no seccomp, or an architecture whose numbers are not here).
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
    code = program(machine)
    instructions = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions)))
    libc = kernel.library()
    number = ctypes.c_long(_SECCOMP[machine])
    if libc.syscall(number, _SET_MODE_FILTER, _FLAG_SPEC_ALLOW, header) == -1:
        if ctypes.get_errno() != errno.EINVAL:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        kernel.check(libc.syscall(number, _SET_MODE_FILTER, 0, header))  # before Linux 4.17


def program(machine: str) -> bytes:
    """The filter for an architecture as classic BPF, 8 bytes an instruction."""
    column = list(_ARCHITECTURES).index(machine)
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _step(_RETURN, _REFUSE),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, _REFUSE),
    ]
    for numbers in _REFUSED.values():
        code += _when(numbers[column], [_step(_RETURN, _REFUSE)])
    code += _when(
        _CLONE3, [_step(_RETURN, _NOT_HERE)]
    )  # its flags are in memory; the C library uses clone then
    code += _when(_CLONE[machine], _refuse_if(_ARGUMENT_0, _step(_ANY_BIT, _NEW_NAMESPACES, 0, 1)))
    code += _when(_SOCKET[machine], _refuse_if(_ARGUMENT_0, _step(_EQUAL, _AF_UNIX, 0, 1)))
    # A pair is connected for good, but for datagrams, which can be sent elsewhere.
    datagrams = _step(_AND, _SOCK_TYPES) + _step(_EQUAL, _SOCK_DGRAM, 0, 1)
    code += _when(_SOCKETPAIR[machine], _refuse_if(_ARGUMENT_1, datagrams))
    code.append(_step(_RETURN, _ALLOW))
    return b"".join(code)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _when(number: int, steps: list[bytes]) -> list[bytes]:
    """``steps``, which end the program, for this system call; all others skip them."""
    return [_step(_EQUAL, number, 0, sum(map(len, steps)) // 8), *steps]


def _refuse_if(argument: int, condition: bytes) -> list[bytes]:
    return [_step(_LOAD, argument), condition, _step(_RETURN, _REFUSE), _step(_RETURN, _ALLOW)]
