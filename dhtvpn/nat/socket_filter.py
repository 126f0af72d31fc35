"""Drop in the kernel what no process of ours would take: a classic BPF filter on each socket of the port.

A datagram that is dropped here costs no wake-up, no system call and no place in the receive buffer, so a
flood of garbage costs what a firewall's rule would (docs/protocol/one-port.md). The filters look at lengths,
first bytes and, in what is for a tunnel of ours, the tag that all our receiver indices share. What passes
is still checked in full by whoever takes it.

Pure but for :func:`attach` and :func:`dropped`. The kernel runs a filter over the UDP header and the payload
(socket(7), SO_ATTACH_FILTER; Documentation/networking/filter.rst), so payload offsets are 8 higher here.
"""

import ctypes
import socket
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from dhtvpn.mesh.relay_wire import (
    DATA_HEADER,
    DATA_PREFIX,
    HANDSHAKE_HEADER,
    HANDSHAKE_PREFIX,
    SERVICE_PREFIX,
    SERVICE_SIZE,
)
from dhtvpn.nat import krpc
from dhtvpn.nat.demux import DHT_PREFIX, NOTE_PREFIX, STUN_COOKIE, STUN_HEADER

UDP_HEADER: Final = 8

HANDSHAKE_SIZES: Final = {1: 148, 2: 92, 3: 64}
"""Bytes of an initiation, a response and a cookie reply (WireGuard paper, section 5.4): always these."""

DATA_LEAST: Final = 32
"""Bytes of an empty data message: header and tag."""

DHT_LEAST, DHT_MOST, DHT_KINDS = 23, 1201, 3
"""Prefix, kind, message id and an octet of body; the longest; kinds 0 to 2 (docs/protocol/dht.md)."""

NOTE_SIZE: Final = 1193
"""Prefix and a sealed datagram between members: always this (docs/protocol/lan.md)."""

STUN_MOST: Final = 1280

PASS_BITS: Final = 8
"""A thinned source is let through one time in 2 to the power of this at least."""

_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_LENGTH = 0x20, 0x28, 0x30, 0x80
_JUMP_EQUAL, _JUMP_GREATER, _AND, _ADD, _TO_X = 0x15, 0x25, 0x54, 0x04, 0x07
_JUMP_EQUAL_X, _RETURN = 0x1D, 0x06
_NETWORK_HEADER = -0x100000  # SKF_NET_OFF: offsets from the IP header on (linux/filter.h)
_RANDOM = -0x1000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: a random 32-bit number

_SO_ATTACH_FILTER, _SO_MEMINFO = 26, 55  # asm-generic/socket.h
_MEMINFO_WORDS, _MEMINFO_DROPS = 9, 8  # linux/sock_diag.h: SK_MEMINFO_VARS, SK_MEMINFO_DROPS

TAKE, DROP = 0xFFFFFFFF, 0
"""What a filter returns: the bytes of the datagram to keep."""


class Instruction(NamedTuple):
    """struct sock_filter of linux/filter.h."""

    code: int
    if_true: int
    if_false: int
    constant: int


NOTHING: Final = (Instruction(_RETURN, 0, 0, DROP),)
"""The filter of a socket that only sends."""


class _Assembler:
    """Instructions with names for the places that are jumped to, all of them further down."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str, str, int]] = []
        self._places: dict[str, int] = {}

    def add(self, code: int, constant: int = 0, if_true: str = "", if_false: str = "") -> None:
        """``""`` goes on with the next line."""
        self._lines.append((code, if_true, if_false, constant & 0xFFFFFFFF))

    def place(self, name: str) -> None:
        self._places[name] = len(self._lines)

    def program(self) -> tuple[Instruction, ...]:
        def distance(line: int, name: str) -> int:
            return self._places[name] - line - 1 if name else 0

        return tuple(
            Instruction(code, distance(line, if_true), distance(line, if_false), constant)
            for line, (code, if_true, if_false, constant) in enumerate(self._lines)
        )


def control_filter(
    family: int,
    index_tag: int | None,
    thinned: Mapping[bytes, int] | None = None,
    *,
    data: bool = False,
    relaying: bool = False,
    krpc_answers: bool = False,
) -> tuple[Instruction, ...]:
    """For a control socket of ``family`` (4 or 6).

    ``index_tag``: the upper 16 bits of every receiver index of ours; None: no tunnels here, so none of their
    messages. ``thinned`` maps the first 4 (IPv4) or 8 (IPv6: /64) bytes of a source address to n: one in
    2**n of what strangers may send passes. ``data``: data messages are for this socket too.
    ``relaying``: so is what is to be relayed. ``krpc_answers``: so are answers of the BitTorrent DHT.
    """
    assembler = _Assembler()
    add, place = assembler.add, assembler.place
    add(_LOAD_BYTE, UDP_HEADER)
    add(_JUMP_EQUAL, DHT_PREFIX, "dht")
    if index_tag is not None:
        add(_JUMP_EQUAL, NOTE_PREFIX, "note")
    if index_tag is not None or relaying:
        add(_JUMP_EQUAL, SERVICE_PREFIX, "relay service")
        add(_JUMP_EQUAL, HANDSHAKE_PREFIX, "relayed handshake")
        if data:
            add(_JUMP_EQUAL, DATA_PREFIX, "relayed data")
    if krpc_answers:
        add(_JUMP_EQUAL, krpc.FIRST_BYTE, "krpc")
    add(_LOAD_WORD, UDP_HEADER)
    if index_tag is not None:
        for kind in HANDSHAKE_SIZES:
            add(_JUMP_EQUAL, kind << 24, f"type {kind}")
        if data:
            add(_JUMP_EQUAL, 4 << 24, "data")
            add(_JUMP_EQUAL, 5 << 24, "data")
    add(_JUMP_GREATER, 0x03FFFFFF, "drop")
    _stun(assembler)
    if index_tag is not None:
        _handshakes(assembler, index_tag)
        if data:
            place("data")
            _data(assembler, index_tag)
        place("note")
        add(_LOAD_LENGTH)
        add(_JUMP_EQUAL, UDP_HEADER + NOTE_SIZE, "stranger", "drop")
    if index_tag is not None or relaying:
        _relay(assembler, None if relaying else index_tag, data=data)
    if krpc_answers:
        place("krpc")
        add(_LOAD_LENGTH)
        add(_JUMP_GREATER, UDP_HEADER + krpc.MOST, "drop")
        add(_JUMP_GREATER, UDP_HEADER + krpc.LEAST - 1, "stranger", "drop")
    place("dht")
    add(_LOAD_LENGTH)
    add(_JUMP_GREATER, UDP_HEADER + DHT_MOST, "drop")
    add(_JUMP_GREATER, UDP_HEADER + DHT_LEAST - 1, "", "drop")
    add(_LOAD_BYTE, UDP_HEADER + 1)
    add(_JUMP_GREATER, DHT_KINDS - 1, "drop")
    place("stranger")
    _thin(assembler, family, thinned or {})
    place("take")
    add(_RETURN, TAKE)
    place("drop")
    add(_RETURN, DROP)
    return assembler.program()


def engine_filter(index_tag: int) -> tuple[Instruction, ...]:
    """For an engine's socket: data messages whose receiver index may be one of ours.

    Of a run that the kernel has joined (UDP_GRO) only the first message is looked at.
    """
    assembler = _Assembler()
    assembler.add(_LOAD_WORD, UDP_HEADER)
    assembler.add(_JUMP_EQUAL, 4 << 24, "data")
    assembler.add(_JUMP_EQUAL, 5 << 24, "data")
    assembler.add(_LOAD_BYTE, UDP_HEADER)
    assembler.add(_JUMP_EQUAL, DATA_PREFIX, "", "drop")
    _data(assembler, index_tag, DATA_HEADER)
    assembler.place("data")
    _data(assembler, index_tag)
    assembler.place("take")
    assembler.add(_RETURN, TAKE)
    assembler.place("drop")
    assembler.add(_RETURN, DROP)
    return assembler.program()


def relay_filter() -> tuple[Instruction, ...]:
    """For the socket of a volunteer that gets what is to be relayed."""
    assembler = _Assembler()
    assembler.add(_LOAD_BYTE, UDP_HEADER)
    assembler.add(_JUMP_EQUAL, DATA_PREFIX, "", "drop")
    assembler.add(_LOAD_LENGTH)
    assembler.add(_JUMP_GREATER, UDP_HEADER + DATA_HEADER + DATA_LEAST - 1, "take", "drop")
    assembler.place("take")
    assembler.add(_RETURN, TAKE)
    assembler.place("drop")
    assembler.add(_RETURN, DROP)
    return assembler.program()


def group_filter(family: int, size: int) -> tuple[Instruction, ...]:
    """Datagrams of ``size`` octets that were sent to a group, and no others."""
    assembler = _Assembler()
    assembler.add(_LOAD_LENGTH)
    assembler.add(_JUMP_EQUAL, UDP_HEADER + size, "", "drop")
    # the destination's first octet: 24 octets into an IPv6 header, 16 into an IPv4 header
    assembler.add(_LOAD_BYTE, _NETWORK_HEADER + (24 if family == 6 else 16))
    if family == 4:
        assembler.add(_AND, 0xF0)  # 224.0.0.0/4 (RFC 5771)
    assembler.add(_JUMP_EQUAL, 0xFF if family == 6 else 0xE0, "", "drop")
    assembler.add(_RETURN, TAKE)
    assembler.place("drop")
    assembler.add(_RETURN, DROP)
    return assembler.program()


def source_key(host: str) -> bytes:
    """What ``thinned`` calls the source address ``host``: 4 bytes of IPv4, 8 of IPv6."""
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host)[:8]
    return socket.inet_pton(socket.AF_INET, host)


def attach(sock: socket.socket, program: tuple[Instruction, ...]) -> None:
    """Put ``program`` on ``sock`` in place of the one that it has. Raises OSError."""
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    instructions = ctypes.create_string_buffer(packed, len(packed))
    fprog = struct.pack("@HP", len(program), ctypes.addressof(instructions))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def dropped(sock: socket.socket) -> int:
    """Datagrams that the kernel has dropped at ``sock``, by the filter or for want of buffer; 32 bits, then
    it begins anew. 0 where the kernel does not tell (before Linux 4.12)."""
    try:
        words = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * _MEMINFO_WORDS)
    except OSError:
        return 0
    return int(struct.unpack_from("=I", words, 4 * _MEMINFO_DROPS)[0])


def _tag(index_tag: int) -> int:
    """As a big-endian load of the index's last two bytes sees it: indices are little-endian."""
    return int.from_bytes(index_tag.to_bytes(2, "little"), "big")


def _stun(assembler: _Assembler) -> None:
    """Cookie, and a length field that agrees with the datagram's."""
    add = assembler.add
    add(_LOAD_WORD, UDP_HEADER + 4)
    add(_JUMP_EQUAL, int.from_bytes(STUN_COOKIE, "big"), "", "drop")
    add(_LOAD_HALF, UDP_HEADER + 2)
    add(_JUMP_GREATER, STUN_MOST - STUN_HEADER, "drop")
    add(_ADD, UDP_HEADER + STUN_HEADER)
    add(_TO_X)
    add(_LOAD_LENGTH)
    add(_JUMP_EQUAL_X, 0, "stranger", "drop")


def _handshakes(assembler: _Assembler, index_tag: int) -> None:
    """Exact lengths. Responses and cookie replies name an index of ours, at 8 and at 4."""
    add, place = assembler.add, assembler.place
    place("type 1")
    add(_LOAD_LENGTH)
    add(_JUMP_EQUAL, UDP_HEADER + HANDSHAKE_SIZES[1], "stranger", "drop")
    for kind, receiver in ((2, 8), (3, 4)):
        place(f"type {kind}")
        add(_LOAD_LENGTH)
        add(_JUMP_EQUAL, UDP_HEADER + HANDSHAKE_SIZES[kind], "", "drop")
        add(_LOAD_HALF, UDP_HEADER + receiver + 2)
        add(_JUMP_EQUAL, _tag(index_tag), "take", "drop")


def _data(assembler: _Assembler, index_tag: int, start: int = 0) -> None:
    """A data message that begins at ``start``."""
    assembler.add(_LOAD_LENGTH)
    assembler.add(_JUMP_GREATER, UDP_HEADER + start + DATA_LEAST - 1, "", "drop")
    assembler.add(_LOAD_HALF, UDP_HEADER + start + 6)
    assembler.add(_JUMP_EQUAL, _tag(index_tag), "take", "drop")


def _relay(assembler: _Assembler, index_tag: int | None, *, data: bool) -> None:
    """Registrations and their answers are short; handshake messages have three lengths."""
    add, place = assembler.add, assembler.place
    place("relay service")
    add(_LOAD_LENGTH)
    add(_JUMP_GREATER, UDP_HEADER + SERVICE_SIZE, "drop", "stranger")
    place("relayed handshake")
    add(_LOAD_LENGTH)
    for size in HANDSHAKE_SIZES.values():
        add(_JUMP_EQUAL, UDP_HEADER + HANDSHAKE_HEADER + size, "stranger")
    add(_RETURN, DROP)
    if not data:
        return
    place("relayed data")
    if index_tag is not None:
        _data(assembler, index_tag, DATA_HEADER)
    else:
        add(_LOAD_LENGTH)
        add(_JUMP_GREATER, UDP_HEADER + DATA_HEADER + DATA_LEAST - 1, "take", "drop")


def _thin(assembler: _Assembler, family: int, thinned: Mapping[bytes, int]) -> None:
    """One random bit pattern in 2**n passes, for each source that floods."""
    add, place = assembler.add, assembler.place
    for number, (source, bits) in enumerate(thinned.items()):
        if len(source) != (8 if family == 6 else 4):
            continue
        other = f"not source {number}"
        for start in range(0, len(source), 4):
            add(_LOAD_WORD, _NETWORK_HEADER + (8 if family == 6 else 12) + start)
            add(_JUMP_EQUAL, int.from_bytes(source[start : start + 4], "big"), "", other)
        add(_LOAD_WORD, _RANDOM)
        add(_AND, (1 << min(bits, PASS_BITS)) - 1)
        add(_JUMP_EQUAL, 0, "take", "drop")
        place(other)
