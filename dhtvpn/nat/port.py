"""The one UDP port of a node: STUN, DHT and tunnel on one socket per address family."""

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.demux import DHT_PREFIX_BYTES, NOTE_PREFIX_BYTES, Kind, classify
from dhtvpn.nat.heard_at import ANCILLARY_SIZE, Ancillary, HeardAt
from dhtvpn.nat.other_port import OtherPort
from dhtvpn.nat.port_sockets import PortSockets, open_sockets
from dhtvpn.nat.reading import WINDOW_S, ReadBudget, Thinning
from dhtvpn.nat.socket_filter import attach, control_filter, dropped, engine_filter, relay_filter

if TYPE_CHECKING:
    from dhtvpn.nat.stun_router import StunRouter

log = logging.getLogger(__name__)

READ_BATCH = 64
"""Datagrams read per wake-up and family. Ours: a flood leaves the event loop its turn every few ms."""

MAX_DATAGRAM = 65535

_SEND_DROPS = {
    errno.EAGAIN: "send_buffer_full",
    errno.ENOBUFS: "send_buffer_full",
    errno.ENETUNREACH: "send_unreachable",
    errno.EHOSTUNREACH: "send_unreachable",
    errno.ENETDOWN: "send_unreachable",
    errno.EADDRNOTAVAIL: "send_unreachable",
    errno.EPERM: "send_refused",
    errno.EACCES: "send_refused",
    errno.EMSGSIZE: "send_too_long",
}

_ANSWERED_FROM_WHERE_HEARD = frozenset(
    (Kind.DHT, Kind.NOTE, Kind.STUN, Kind.RELAY_SERVICE, Kind.TUNNEL_HANDSHAKE)
)

_FROM_NEIGHBOURS = frozenset((Kind.STUN, Kind.TUNNEL_HANDSHAKE, Kind.TUNNEL_DATA))
"""What may come from a link-local address: paths between members. All else is for everybody, and whoever
is told of such an address elsewhere can make nothing of it."""

DatagramHandler = Callable[[bytes, Endpoint], None]


class UdpPort:
    """Reads datagrams and hands each to its room; sends without ever blocking or raising.

    Made by :meth:`open`. ``stun`` routes STUN messages; the other kinds go to the handlers that
    ``on_dht``, ``on_tunnel`` and ``on_data`` set. A kind without a handler is dropped and counted in
    ``drops``.
    """

    def __init__(self, sockets: PortSockets, drops: Drops, share: float | None = None) -> None:
        self._sockets = sockets
        self.drops = drops
        self._buffer = bytearray(MAX_DATAGRAM)
        self._view = memoryview(self._buffer)
        self._closed = False
        self._heard_at = HeardAt()
        self._other_port = OtherPort()
        self._loop = asyncio.get_running_loop()
        self._handlers: dict[Kind, DatagramHandler] = {Kind.STUN: self._route_stun}
        now = time.monotonic()
        self._budget = ReadBudget(now, share)
        self._thinning = Thinning(now)
        self._filtering = False
        self._index_tag: int | None = None
        self._relaying = False
        self._on_exhausted: Callable[[], None] | None = None
        self._resume: asyncio.TimerHandle | None = None
        self._review: asyncio.TimerHandle | None = None

    @classmethod
    async def open(
        cls,
        port: int | None,
        host_v4: str | None = "0.0.0.0",  # noqa: S104 - a VPN node listens on every address
        host_v6: str | None = "::",
        *,
        drops: Drops,
        tunnel_sockets: bool,
        reading: bool = True,
        share: float | None = None,
    ) -> "UdpPort":
        """Bind ``port`` (None or 0: a free one, the same on both families) and start reading.

        ``host_v4`` or ``host_v6`` None leaves that family out; a family that the machine does not have
        is left out too (``families`` says which are there). ``tunnel_sockets`` adds the engine's sockets.
        ``reading`` False: datagrams wait in the kernel until :meth:`start_reading`. ``share`` of one core
        (reading.SHARE unless given) may go into reading, with all that a datagram brings about.
        Raises SystemRefusedError: port in use, not allowed, address not of this machine, no network.
        """
        hosts = {family: host for family, host in ((4, host_v4), (6, host_v6)) if host is not None}
        opened = cls(open_sockets(port, hosts, tunnel_sockets), drops, share)
        if reading:
            opened.start_reading()
        return opened

    def start_reading(self) -> None:
        """Let datagrams in."""
        self._resume = None
        for control in self._sockets.control.values():
            self._loop.add_reader(control, self._read_batch, control)

    @property
    def port(self) -> int:
        """The UDP port number, the same on every family."""
        return self._sockets.port

    @property
    def families(self) -> tuple[int, ...]:
        """4, 6 or both: what the port really listens on."""
        return tuple(self._sockets.control)

    @property
    def engine_sockets(self) -> list[socket.socket]:
        """The sockets for the engine process, IPv4 first; of each family the first receives, and those after
        it only send. Empty without ``tunnel_sockets``.

        Without :attr:`kernel_demux` they are for sending only, and data messages come to ``on_data``.
        """
        lanes = self._sockets.lanes
        return [
            sock for family, first in self._sockets.engine.items() for sock in (first, *lanes.get(family, ()))
        ]

    @property
    def kernel_demux(self) -> bool:
        """The kernel delivers types 4 to 7 to the engine's sockets."""
        return self._sockets.kernel_demux

    def filter_in_kernel(self, index_tag: int | None, *, relaying: bool = False) -> None:
        """From now on let the kernel drop what nobody here takes (socket_filter.py).

        ``index_tag``: the upper 16 bits of every receiver index of our tunnels; None: there are none.
        ``relaying``: what is to be relayed is for us, whatever its index.
        Where the kernel refuses, everything is read and dropped here, as before.
        """
        self._filtering, self._index_tag, self._relaying = True, index_tag, relaying
        self._attach_filters()
        if not self._sockets.kernel_demux or (index_tag is None and not relaying):
            return
        program = relay_filter() if index_tag is None else engine_filter(index_tag)
        for engine in self._sockets.engine.values():
            with contextlib.suppress(OSError):
                attach(engine, program)

    def count_kernel_drops(self) -> None:
        """Bring ``port.kernel`` and ``port.kernel_data`` in ``drops`` up to date: what the kernel dropped at
        the control and the engine's sockets, by a filter or because nobody read fast enough."""
        own = {"port.kernel": self._sockets.control.values()}
        if self._sockets.kernel_demux:
            own["port.kernel_data"] = self._sockets.engine.values()
        counts = {name: sum(dropped(sock) for sock in sockets) for name, sockets in own.items()}
        self.drops.merge({name: count for name, count in counts.items() if count})

    def on_dht(self, handler: DatagramHandler) -> None:
        """Who gets DHT datagrams, prefix byte removed."""

        def without_prefix(data: bytes, source: Endpoint) -> None:
            handler(data[1:], source)

        self._handlers[Kind.DHT] = without_prefix

    def on_note(self, handler: DatagramHandler) -> None:
        """Who gets members' sealed datagrams, prefix byte removed."""

        def without_prefix(data: bytes, source: Endpoint) -> None:
            handler(data[1:], source)

        self._handlers[Kind.NOTE] = without_prefix

    def on_krpc(self, handler: DatagramHandler) -> None:
        """Who gets answers of the BitTorrent DHT; without, the kernel drops them."""
        self._handlers[Kind.KRPC] = handler
        if self._filtering:
            self._attach_filters()

    @cached_property
    def stun(self) -> "StunRouter":
        """Who gets STUN messages, unless :meth:`on_stun` has set another handler. Loaded when it is used: a
        bootstrap node does without ICE."""
        from dhtvpn.nat.stun_router import StunRouter  # noqa: PLC0415 - brings aioice along

        return StunRouter(self.drops)

    def _route_stun(self, data: bytes, source: Endpoint) -> None:
        self.stun.handle_datagram(data, source)

    def on_stun(self, handler: DatagramHandler) -> None:
        """Who gets STUN messages in place of :attr:`stun`."""
        self._handlers[Kind.STUN] = handler

    def on_exhausted(self, handler: Callable[[], None]) -> None:
        """Who is told, at every batch, that the share of the processor is used up."""
        self._on_exhausted = handler

    def on_tunnel(self, handler: DatagramHandler) -> None:
        """Who gets handshake messages, types 1-3."""
        self._handlers[Kind.TUNNEL_HANDSHAKE] = handler

    def on_relayed_handshake(self, handler: DatagramHandler) -> None:
        """Who gets handshake messages that come through a relay, prefix included."""
        self._handlers[Kind.RELAYED_HANDSHAKE] = handler

    def on_relay_service(self, handler: DatagramHandler) -> None:
        """Who gets what members and volunteers say to each other about relaying, prefix included."""
        self._handlers[Kind.RELAY_SERVICE] = handler

    def on_data(self, handler: DatagramHandler) -> None:
        """Who gets data messages, types 4 to 7, relayed or not, that reach the control socket: all of them
        without :attr:`kernel_demux`, none with it."""
        self._handlers[Kind.TUNNEL_DATA] = handler

    def send(self, data: bytes, endpoint: Endpoint) -> bool:
        """Send now or drop and count. True when the kernel took it."""
        control = self._sockets.control.get(6 if endpoint.is_ipv6 else 4)
        if control is None:
            self.drops.count("port", "send_no_family")
            return False
        try:
            # A name in place of an address would make sendto ask a resolver, and block.
            socket.inet_pton(control.family, endpoint.host)
            control.sendto(data, endpoint.socket_address)
        except OSError as error:
            self.drops.count("port", _SEND_DROPS.get(error.errno or 0, "send_failed"))
            return False
        except (OverflowError, ValueError):
            self.drops.count("port", "send_failed")
            return False
        return True

    def send_dht(self, data: bytes, endpoint: Endpoint) -> bool:
        """Send a DHT datagram: the prefix byte is put before ``data``."""
        return self.answer(DHT_PREFIX_BYTES + data, endpoint)

    def send_note(self, data: bytes, endpoint: Endpoint) -> bool:
        """Send a member's sealed datagram: the prefix byte is put before ``data``."""
        return self.answer(NOTE_PREFIX_BYTES + data, endpoint)

    def answer(self, data: bytes, endpoint: Endpoint) -> bool:
        """Like :meth:`send`, from the address at which ``endpoint`` was last heard, if it was."""
        ancillary = self._heard_at.answer_to(endpoint)
        control = self._sockets.control.get(6 if endpoint.is_ipv6 else 4)
        if ancillary and control is not None:
            try:
                control.sendmsg([data], ancillary, 0, endpoint.socket_address)
            except OSError:
                self._heard_at.forget(endpoint)  # an address that was taken away: the kernel chooses
            else:
                return True
        return self.send(data, endpoint)

    def answer_from_other_port(self, data: bytes, endpoint: Endpoint) -> int | None:
        """Like :meth:`answer`, from a port that nobody has sent to; returns its number, None if unsent."""
        return self._other_port.send(data, endpoint, self._heard_at.answer_to(endpoint))

    def heard_at(self, endpoint: Endpoint) -> IPv4Address | IPv6Address | None:
        """The address of ours at which ``endpoint`` was last heard, where that is known."""
        return self._heard_at.address_for(endpoint)

    def network_changed(self) -> None:
        """Let the kernel choose anew from where to send."""
        self._heard_at.forget_all()

    def close(self) -> None:
        """Stop reading and close every socket, the engine's included. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._pause()
        for timer in (self._resume, self._review):
            if timer is not None:
                timer.cancel()
        self._sockets.close()
        self._other_port.close()
        self._handlers.clear()

    def _pause(self) -> None:
        for control in self._sockets.control.values():
            self._loop.remove_reader(control)

    def _read_batch(self, control: socket.socket) -> None:
        began = time.thread_time()
        self._drain(control)
        now = time.monotonic()
        pause_s = self._budget.spend(time.thread_time() - began, now)
        if pause_s and not self._closed:
            self._pause()
            if self._resume is None:  # the other family may have paused in this turn
                self._resume = self._loop.call_later(pause_s, self.start_reading)
            if self._budget.exhausted and self._on_exhausted is not None:
                self._on_exhausted()
            if self._filtering and self._budget.exhausted:
                self._thinning.flooded(now)
                if self._review is None:
                    self._review = self._loop.call_later(WINDOW_S, self._review_sources)

    def _review_sources(self) -> None:
        """Thin those who flood, as long as there is a flood."""
        if self._thinning.review(time.monotonic()):
            self._attach_filters()
        watching = self._thinning.active
        self._review = self._loop.call_later(WINDOW_S, self._review_sources) if watching else None

    def _drain(self, control: socket.socket) -> None:
        """Read and handle what is there, at most READ_BATCH datagrams."""
        for _ in range(READ_BATCH):
            if self._closed:
                return
            try:
                size, ancillary, _, address = control.recvmsg_into([self._buffer], ANCILLARY_SIZE)
            except BlockingIOError:
                return
            except OSError:
                self.drops.count("port", "receive_failed")
                continue
            source = Endpoint.from_socket(address)
            if self._review is not None:
                self._thinning.count(source.without_zone().host)
            self._handle_datagram(bytes(self._view[:size]), source, ancillary)

    def _attach_filters(self) -> None:
        data = not self._sockets.kernel_demux
        for family, control in self._sockets.control.items():
            program = control_filter(
                family,
                self._index_tag,
                self._thinning.sources,
                data=data,
                relaying=self._relaying,
                krpc_answers=Kind.KRPC in self._handlers,
            )
            try:
                attach(control, program)
            except OSError as error:
                log.info("the kernel takes no socket filter (%s): a flood costs more", error.strerror)
                return

    def _handle_datagram(self, data: bytes, source: Endpoint, ancillary: Ancillary) -> None:
        kind = classify(data)
        if source.is_link_local and (kind not in _FROM_NEIGHBOURS or not source.zone):
            self.drops.count("port", "link_local")
            return
        if kind in _ANSWERED_FROM_WHERE_HEARD:
            self._heard_at.remember(source, ancillary)
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(data, source)
        elif kind in (Kind.UNKNOWN, Kind.KRPC):
            self.drops.count("port", "unknown")
        else:
            self.drops.count("port", "no_handler")
