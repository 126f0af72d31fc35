"""The seccomp program, carried out step by step as the kernel would."""

import errno
import socket
import struct

import pytest

from dhtvpn.confinement import system_calls

ALLOW, REFUSE, NOT_HERE = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
UNIX, INET = int(socket.AF_UNIX), int(socket.AF_INET)


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter for ``machine`` returns for a system call."""
    audit = system_calls._ARCHITECTURES[machine] if architecture is None else architecture
    data = struct.pack("=IIQ6Q", number, audit, 0, *(*arguments, *[0] * (6 - len(arguments))))
    steps = list(struct.iter_unpack("=HBBI", system_calls.program(machine)))
    at = value = 0
    while True:
        code, if_true, if_false, constant = steps[at]
        at += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, constant)
            case 0x54:
                value &= constant
            case 0x15:
                at += if_true if value == constant else if_false
            case 0x35:
                at += if_true if value >= constant else if_false
            case 0x45:
                at += if_true if value & constant else if_false
            case 0x06:
                return int(constant)
            case _:
                raise AssertionError(f"no such step {code:#x}")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_verdicts(machine: str) -> None:
    for numbers in system_calls._REFUSED.values():
        assert verdict(machine, numbers[machine == "aarch64"]) == REFUSE
    for number, arguments, expected in (
        (system_calls._SOCKET[machine], (UNIX, 1), REFUSE),
        (system_calls._SOCKET[machine], (INET, 2), ALLOW),
        (system_calls._SOCKETPAIR[machine], (UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC), ALLOW),
        (system_calls._SOCKETPAIR[machine], (UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC), REFUSE),
        (system_calls._CLONE[machine], (17,), ALLOW),
        (system_calls._CLONE[machine], (0x10000000 | 17,), REFUSE),
        (435, (), NOT_HERE),
        (0xFFF, (), ALLOW),
    ):
        assert verdict(machine, number, *arguments) == expected
    assert verdict(machine, 0xFFF, architecture=0x40000003) == REFUSE, "another architecture's numbers"
    assert verdict(machine, 0x40000000 + 0xFFF) == REFUSE, "x32"
