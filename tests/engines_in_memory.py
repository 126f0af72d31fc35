"""Two engines joined in memory: devices are queues, sockets hand datagrams straight to the other engine."""

import errno
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from dhtvpn.dataplane.engine import Engine
from dhtvpn.dataplane.messages import Configure, Event, InstallKeypair, Send, SetFeatures, SetPeer
from dhtvpn.dataplane.sockets import SOL_UDP, UDP_GRO, UDP_SEGMENT
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.frames import Blocks
from dhtvpn.mesh.frames import encode as encode_frame
from dhtvpn.packet.checksum import internet_checksum
from dhtvpn.system.tun import MemoryTun

MTU = 1420
SO_MEMINFO = 55  # asm-generic/socket.h
KEY_A, KEY_B = bytes([1]) * 32, bytes([2]) * 32
INDEX_A, INDEX_B = 10, 20


class FakeSocket:
    """A UDP socket without a kernel. ``refuse`` maps a send to an errno, or None to let it pass."""

    def __init__(self, address: tuple[str, int], family: int = socket.AF_INET) -> None:
        self.family = family
        self.address = address
        self.sent: list[tuple[list[bytes], Any]] = []
        """One entry per sendmsg: the datagrams of the run, and where they went."""
        self.marks: list[int] = []
        """The ECN bits of each entry of ``sent``."""
        self.arrived: deque[tuple[Any, ...]] = deque()
        """What recvmsg_into gives: bytes, the length of each datagram in them, source address, and maybe
        ECN bits."""
        self.refuse: Callable[[Sequence[bytes]], int | None] = lambda run: None
        self.options: list[tuple[int, int, Any]] = []
        self.receive_error: int | None = None
        self.waiting_bytes = 0
        """What the kernel says that arrived datagrams take."""

    def sendmsg(self, parts: Sequence[bytes], ancillary: list[Any], flags: int, address: Any) -> int:
        code = self.refuse(parts)
        if code is not None:
            raise OSError(code, os.strerror(code))
        data = b"".join(parts)
        size, mark = len(data), 0
        for level, kind, value in ancillary:
            if (level, kind) == (SOL_UDP, UDP_SEGMENT):
                size = int.from_bytes(value, sys.byteorder)
            else:
                assert (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS)
                mark = int.from_bytes(value, sys.byteorder)
        self.marks.append(mark)
        self.sent.append(([data[at : at + size] for at in range(0, len(data), size)], address))
        return len(data)

    def recvmsg_into(self, vector: list[memoryview], ancillary_size: int) -> tuple[int, list[Any], int, Any]:
        if self.receive_error is not None:
            code, self.receive_error = self.receive_error, None
            raise OSError(code, os.strerror(code))
        if not self.arrived:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        data, stride, source, *mark = self.arrived.popleft()
        vector[0][: len(data)] = data
        ancillary = [(SOL_UDP, UDP_GRO, stride.to_bytes(4, sys.byteorder))] if stride < len(data) else []
        if mark:
            ancillary.append((socket.IPPROTO_IP, socket.IP_TOS, bytes(mark)))  # the kernel gives one byte
        return len(data), ancillary, 0, source

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        if option == SO_MEMINFO:
            return self.waiting_bytes.to_bytes(size, sys.byteorder)
        return bytes(size) if size else 0

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self.options.append((level, option, value))


@dataclass
class Side:
    """One engine with its device, its socket and its events."""

    address4: IPv4Address
    address6: IPv6Address
    endpoint: Endpoint
    tun: MemoryTun = field(default_factory=MemoryTun)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.socket = FakeSocket((self.endpoint.host, self.endpoint.port))
        self.engine = Engine(
            device=self.tun,
            sockets=[self.socket],  # type: ignore[list-item]
            segments={int(socket.AF_INET): True},
            emit=self.events.append,
        )
        self.engine.handle_command(Configure((self.address4, self.address6), MTU), 0.0)

    def know(self, other: "Side", peer: int = 1) -> None:
        """Let the other side's addresses belong to peer number ``peer``."""
        networks = (ip_network(other.address4), ip_network(other.address6))
        self.engine.handle_command(SetPeer(peer, networks, other.endpoint), 0.0)

    def send(self, *packets: bytes, now: float = 0.0) -> None:
        """Let this machine send ``packets``."""
        self.tun.sent_by_host.extend(packets)
        while self.tun.sent_by_host:
            self.engine.device_readable(now)

    def take_sent(self) -> list[bytes]:
        """The datagrams that went out since the last call."""
        datagrams = [datagram for run, _ in self.socket.sent for datagram in run]
        self.socket.sent.clear()
        self.socket.marks.clear()
        return datagrams

    def take_runs(self) -> list[tuple[list[bytes], int]]:
        """The runs that went out since the last call, with their ECN bits."""
        runs = [(run, mark) for (run, _), mark in zip(self.socket.sent, self.socket.marks, strict=True)]
        self.socket.sent.clear()
        self.socket.marks.clear()
        return runs

    def take_received(self) -> list[bytes]:
        """What this machine got since the last call."""
        received = self.tun.received_by_host[:]
        self.tun.received_by_host.clear()
        return received

    def receive(self, *datagrams: bytes, source: Any = None, now: float = 0.0) -> None:
        """Let ``datagrams`` arrive one by one."""
        for datagram in datagrams:
            self.socket.arrived.append((datagram, len(datagram), source or ("192.0.2.99", 9)))
        while self.socket.arrived:
            self.engine.socket_readable(self.socket, now)  # type: ignore[arg-type]

    def receive_run(
        self, run: Sequence[bytes], mark: int = 0, *, source: Any = None, now: float = 0.0
    ) -> None:
        """Let ``run`` arrive in one call: equal lengths, the last may be shorter."""
        assert all(len(datagram) == len(run[0]) for datagram in run[:-1])
        assert len(run[-1]) <= len(run[0])
        self.socket.arrived.append((b"".join(run), len(run[0]), source or ("192.0.2.99", 9), mark))
        self.engine.socket_readable(self.socket, now)  # type: ignore[arg-type]

    def drops(self) -> dict[str, int]:
        return self.engine.drops.as_dict()


def keypair_a(peer: int = 1, created_at: float = 0.0) -> InstallKeypair:
    return InstallKeypair(peer, INDEX_A, INDEX_B, KEY_A, KEY_B, True, created_at)


def keypair_b(peer: int = 1, created_at: float = 0.0) -> InstallKeypair:
    return InstallKeypair(peer, INDEX_B, INDEX_A, KEY_B, KEY_A, False, created_at)


@dataclass
class Pair:
    """Initiator ``a`` and responder ``b``."""

    a: Side
    b: Side

    @classmethod
    def make(cls, keys: bool = True, *, vnet: tuple[bool, bool] = (False, False)) -> "Pair":
        """``vnet``: whether the devices of ``a`` and ``b`` have a virtio header."""
        tun_a, tun_b = (MemoryTun(vnet_header=header) for header in vnet)
        a = Side(IPv4Address("10.1.0.1"), IPv6Address("fd00::1"), Endpoint("192.0.2.1", 4001), tun_a)
        b = Side(IPv4Address("10.1.0.2"), IPv6Address("fd00::2"), Endpoint("192.0.2.2", 4002), tun_b)
        a.know(b)
        b.know(a)
        pair = cls(a, b)
        if keys:
            a.engine.handle_command(keypair_a(), 0.0)
            b.engine.handle_command(keypair_b(), 0.0)
        return pair

    @classmethod
    def with_trains(cls, *, aes: bool = False, keys: bool = True) -> "Pair":
        """Devices with a virtio header, and trains both ways."""
        pair = cls.make(keys, vnet=(True, True))
        for side in (pair.a, pair.b):
            side.engine.handle_command(
                SetFeatures(1, trains=True, udp_trains=True, aes=aes, blocks=False), 0.0
            )
        return pair

    @classmethod
    def with_blocks(cls, *, aes: bool = False) -> "Pair":
        """The same, and both sides have said that they want super-packets as blocks."""
        pair = cls.with_trains(aes=aes)
        for side, other in ((pair.a, pair.b), (pair.b, pair.a)):
            side.engine.handle_command(
                SetFeatures(1, trains=True, udp_trains=True, aes=aes, blocks=True), 0.0
            )
            side.engine.handle_command(Send(1, encode_frame(Blocks(wanted=True))), 0.0)
            other.receive(*side.take_sent(), source=side.socket.address)
            side.receive(*other.take_sent(), source=other.socket.address)
        return pair

    def carry_runs(self, mark: int | None = None, now: float = 0.0) -> None:
        """Take what ``a`` has sent across, in the runs that it was sent in; a router sets ``mark``."""
        for run, sent_mark in self.a.take_runs():
            self.b.receive_run(
                run, sent_mark if mark is None else mark, source=self.a.socket.address, now=now
            )

    def carry(self, now: float = 0.0) -> None:
        """Take datagrams across until none is left."""
        while self.a.socket.sent or self.b.socket.sent:
            self.b.receive(*self.a.take_sent(), source=self.a.socket.address, now=now)
            self.a.receive(*self.b.take_sent(), source=self.b.socket.address, now=now)


def ipv4(
    source: Any, destination: Any, body: bytes = b"hello", *, protocol: int = 17, flags: int = 0x4000
) -> bytes:
    """An IPv4 packet with a right header checksum."""
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(body),
        1,
        flags,
        64,
        protocol,
        0,
        ip_address(source).packed,
        ip_address(destination).packed,
    )
    return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + body


def ipv6(source: Any, destination: Any, body: bytes = b"hello", *, next_header: int = 17) -> bytes:
    """An IPv6 packet."""
    head = struct.pack("!IHBB", 6 << 28, len(body), next_header, 64)
    return head + ip_address(source).packed + ip_address(destination).packed + body
