"""Let the kernel hand data messages to the engine: SO_REUSEPORT with a filter of a few instructions.

Two sockets share the port. The first one bound has index 0 (control), the second index 1 (engine). The
kernel runs the filter over the UDP payload of every datagram and delivers to the socket whose index it
returns (socket(7), SO_ATTACH_REUSEPORT_CBPF, Linux 4.5).
"""

import ctypes
import socket
import struct

from dhtvpn.mesh.relay_wire import DATA_PREFIX

SO_ATTACH_REUSEPORT_CBPF = getattr(socket, "SO_ATTACH_REUSEPORT_CBPF", 51)
"""asm-generic/socket.h; the socket module does not name it."""

CONTROL_INDEX = 0
ENGINE_INDEX = 1

_LOAD_BYTE = 0x30  # BPF_LD | BPF_B | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

INSTRUCTIONS: tuple[tuple[int, int, int, int], ...] = (
    (_LOAD_BYTE, 0, 0, 0),  # A = payload[0]; an empty payload ends the program with 0: control
    (_JUMP_IF_EQUAL, 3, 0, DATA_PREFIX),  # any of these through a relay
    (_AND, 0, 0, 0xFC),  # 4 to 7: WireGuard's data messages, ours and our blocks
    (_JUMP_IF_EQUAL, 1, 0, 4),
    (_RETURN, 0, 0, CONTROL_INDEX),
    (_RETURN, 0, 0, ENGINE_INDEX),
)
"""(code, jump if true, jump if false, constant): struct sock_filter of linux/filter.h."""

PROGRAM = b"".join(struct.pack("=HBBI", *instruction) for instruction in INSTRUCTIONS)


def attach_filter(group_member: socket.socket) -> None:
    """Attach the filter to the reuseport group that ``group_member`` belongs to.

    The group must already have both sockets. Raises OSError where the kernel has no such option.
    """
    program = ctypes.create_string_buffer(PROGRAM, len(PROGRAM))
    # struct sock_fprog: unsigned short len, then (aligned) a pointer to the instructions.
    fprog = struct.pack("@HP", len(INSTRUCTIONS), ctypes.addressof(program))
    group_member.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, fprog)
