"""A volunteer's relay on its UDP port: takes registrations, and sends on what is for a registered id.

Data messages come to sockets of their own, by the kernel's choice (``reuseport``), in runs of up to 64
datagrams (UDP_GRO), and a run that goes to one member leaves with one call (UDP_SEGMENT): nothing in it is
copied, opened or changed. Handshake messages and registrations come to the port's control socket one by one.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.mesh.relay_wire import (
    DATA_HEADER,
    ID_SIZE,
    NotHere,
    Register,
    Service,
    Stranger,
    decode_service,
    encode_service,
    unwrap_handshake,
)
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.relay_table import RelayTable, Source

log = logging.getLogger(__name__)

BATCH: Final = 16
"""Runs read per wake-up and family, ours."""
NOTICES_PER_S: Final = 50
"""NotHere and Stranger in all: they only make a member notice sooner."""

_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_ANCILLARY = 64
_BUFFER = 1 << 16
_NO_RUNS = frozenset((errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EINVAL, errno.EMSGSIZE))


class RelayService:
    """Works from :meth:`start` on. ``clock`` gives monotonic seconds."""

    def __init__(
        self, port: UdpPort, table: RelayTable, drops: Drops, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.table = table
        self._port, self._drops, self._clock = port, drops, clock
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._sockets = {6 if sock.family == socket.AF_INET6 else 4: sock for sock in _first(port)}
        self._notices, self._notices_at = float(NOTICES_PER_S), clock()
        port.on_relay_service(self.service_datagram)
        port.on_relayed_handshake(self.handshake_datagram)

    def start(self) -> None:
        """Read what is to be relayed."""
        if not self._port.kernel_demux:
            self._port.on_data(self._data_datagram)
            return
        loop = asyncio.get_running_loop()
        for sock in self._sockets.values():
            with contextlib.suppress(OSError):
                sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
            loop.add_reader(sock, self._readable, sock)

    def close(self) -> None:
        """Read nothing more; the sockets are the port's."""
        if self._port.kernel_demux:
            loop = asyncio.get_running_loop()
            for sock in self._sockets.values():
                if sock.fileno() >= 0:
                    loop.remove_reader(sock)

    def service_datagram(self, data: bytes, source: Endpoint) -> None:
        """What members say to us. Never raises on its bytes."""
        try:
            message = decode_service(data)
        except DecodeError as error:
            self._drops.count("relay", error.reason)
            return
        if not isinstance(message, Register):
            self._drops.count("relay", "unasked")
            return
        self._answer(self.table.register(message, source, self._clock()), source)

    def handshake_datagram(self, data: bytes, source: Endpoint) -> None:
        """A handshake message for a member. Never raises on its bytes."""
        try:
            identity, _, _ = unwrap_handshake(data)
        except DecodeError as error:
            self._drops.count("relay", error.reason)
            return
        now = self._clock()
        destination = self._destination(identity, source, len(data), 1, now)
        if destination is not None:
            self._port.send(data, destination)

    def _readable(self, sock: socket.socket) -> None:
        now = self._clock()
        for _ in range(BATCH):
            try:
                size, ancillary, _, address = sock.recvmsg_into([self._view], _ANCILLARY)
            except BlockingIOError:
                return
            except OSError:
                self._drops.count("relay", "receive_failed")  # an ICMP error for something that we sent
                continue
            stride = size
            for level, kind, value in ancillary:
                if level == _SOL_UDP and kind == _UDP_GRO:
                    stride = int.from_bytes(value[:4], sys.byteorder) or size
            if stride > DATA_HEADER:
                self._relay(self._buffer, size, stride, Endpoint.from_socket(address), now)

    def _data_datagram(self, data: bytes, source: Endpoint) -> None:
        if len(data) > DATA_HEADER:
            self._relay(data, len(data), len(data), source, self._clock())

    def _relay(self, buffer: bytes | bytearray, size: int, stride: int, source: Endpoint, now: float) -> None:
        """Send on a run of datagrams, the first ``size`` bytes of ``buffer``, of ``stride`` bytes each, the
        last maybe shorter: parts of it, where it is for several members."""
        run, start, startswith = memoryview(buffer)[:size], 0, buffer.startswith
        while start < size:
            header, end = bytes(run[start : start + DATA_HEADER]), start + stride
            while end < size and startswith(header, end, size):
                end += stride
            end = min(end, size)
            part = run[start:end]
            identity = header[1:]
            count = -(-len(part) // stride)
            if len(identity) == ID_SIZE:
                destination = self._destination(identity, source, len(part), count, now)
                if destination is not None:
                    self._send(part, stride, destination)
            start = end

    def _destination(
        self, identity: bytes, source: Endpoint, octets: int, datagrams: int, now: float
    ) -> Endpoint | None:
        """Where to send on ``octets`` of ``source`` for ``identity``; None: they are dropped, counted."""
        sender: Source | None = self.table.sender(source, now)
        if sender is None:
            self._notice(Stranger(), source, now)
            return None
        destination = self.table.holder(identity, now)
        if destination is None:
            self._notice(NotHere(identity), source, now)
            return None
        return destination if self.table.admit(sender, octets, now, datagrams) else None

    def _send(self, run: memoryview, stride: int, destination: Endpoint) -> None:
        sock = self._sockets.get(6 if destination.is_ipv6 else 4)
        if sock is None:
            self._drops.count("relay", "no_family")
            return
        options = [(_SOL_UDP, _UDP_SEGMENT, stride.to_bytes(2, sys.byteorder))] if len(run) > stride else []
        try:
            sock.sendmsg([run], options, 0, destination)
        except OSError as error:
            if len(run) > stride and error.errno in _NO_RUNS:
                for start in range(0, len(run), stride):
                    self._send(run[start : start + stride], stride, destination)
            else:
                self._drops.count("relay", "send_failed")

    def _notice(self, message: Service, source: Endpoint, now: float) -> None:
        """Shorter than what it answers, and few: the address may be somebody else's."""
        self._notices = min(float(NOTICES_PER_S), self._notices + (now - self._notices_at) * NOTICES_PER_S)
        self._notices_at = now
        if self._notices >= 1.0:
            self._notices -= 1.0
            self._answer(message, source)

    def _answer(self, message: Service, source: Endpoint) -> None:
        self._port.answer(encode_service(message), source)


def _first(port: UdpPort) -> list[socket.socket]:
    """The first socket of each family that is there for data messages."""
    found: dict[int, socket.socket] = {}
    for sock in port.engine_sockets:
        found.setdefault(int(sock.family), sock)
    return list(found.values())
