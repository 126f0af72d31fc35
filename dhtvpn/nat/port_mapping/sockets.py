"""The sockets of this room: to the gateway's PCP and NAT-PMP port, for SSDP, for HTTP, and for announcements.

IPv4's are told not to route: a gateway address that is not on a link of ours is not asked. Only datagrams
from the gateway's own address are let through.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

from dhtvpn.drops import Drops
from dhtvpn.nat.port_mapping import http, pcp_messages, ssdp
from dhtvpn.nat.port_mapping.terms import ROOM, Gateway

HTTP_TIMEOUT_S: Final = 3.0
"""For a whole exchange, from connecting to the last octet."""
STRANGERS: Final = 16
"""Datagrams of others that are thrown away before a pause of STRANGERS_PAUSE_S."""
STRANGERS_PAUSE_S: Final = 0.05
ANNOUNCEMENT_PAUSE_S: Final = 0.05
"""After each announcement, so that a flood of them costs next to nothing; the kernel drops the rest."""

_MAX_DATAGRAM: Final = 2048
_READ_SIZE: Final = 16384
_SMALL_BUFFER: Final = 1 << 14


class GatewayPort:
    """Datagrams to and from the gateway's port 5351 (asking.Channel), over a connected socket."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._socket: socket.socket | None = None

    def send(self, data: bytes) -> None:
        self._opened().send(data)

    async def receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._opened(), _MAX_DATAGRAM)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _opened(self) -> socket.socket:
        if self._socket is None:
            made = _bound(self._gateway)
            try:
                made.connect(_address(self._gateway, pcp_messages.PORT))
            except BaseException:
                made.close()
                raise
            self._socket = made
        return self._socket


class SsdpPort:
    """Searches on the gateway's link, to the group and to the gateway itself (asking.Channel). The answers of
    other devices are counted and left out; a switch may keep the group's datagrams from the gateway."""

    def __init__(self, gateway: Gateway, drops: Drops) -> None:
        self._gateway, self._drops = gateway, drops
        self._socket: socket.socket | None = None

    def send(self, data: bytes) -> None:
        opened = self._opened()
        opened.sendto(data, (ssdp.GROUP, ssdp.PORT))
        with contextlib.suppress(OSError):
            opened.sendto(data, (str(self._gateway.address), ssdp.PORT))

    async def receive(self) -> bytes:
        loop, wanted, strangers = asyncio.get_running_loop(), str(self._gateway.address), 0
        while True:
            data, source = await loop.sock_recvfrom(self._opened(), _MAX_DATAGRAM)
            if source[0] == wanted:
                return data
            self._drops.count(ROOM, "stranger")
            strangers += 1
            if strangers % STRANGERS == 0:
                await asyncio.sleep(STRANGERS_PAUSE_S)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _opened(self) -> socket.socket:
        if self._socket is None:
            made = _bound(self._gateway)
            try:
                link = struct.pack("=4s4si", bytes(4), bytes(4), self._gateway.interface)  # struct ip_mreqn
                made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, link)
                made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
                made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
            except BaseException:
                made.close()
                raise
            self._socket = made
        return self._socket


class GatewayWeb:
    """HTTP to one gateway (upnp.Web): one request for each connection, all of it within HTTP_TIMEOUT_S."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, port: int, request: bytes) -> http.Response:
        loop = asyncio.get_running_loop()
        with _on_link(self._gateway, socket.SOCK_STREAM) as opened:
            async with asyncio.timeout(HTTP_TIMEOUT_S):
                await loop.sock_connect(opened, _address(self._gateway, port))
                await loop.sock_sendall(opened, request)
                response = http.Response()
                while not response.complete:
                    data = await loop.sock_recv(opened, _READ_SIZE)
                    if data:
                        response.feed(data)
                    else:
                        response.end()
                return response


class Announcements:
    """Hears what gateways tell everybody when they start (RFC 6887 section 14.1, RFC 6886 section 3.2.1).

    Other clients on this machine may have the port too; where it cannot be had, nothing is heard.
    """

    def __init__(self, heard: Callable[[bytes, str], None]) -> None:
        """``heard`` gets each datagram with its source address, without a zone."""
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        for family, group in ((socket.AF_INET, "224.0.0.1"), (socket.AF_INET6, "::")):
            with contextlib.suppress(OSError):
                self._sockets.append(_listener(family, group))
        self._resume: dict[socket.socket, asyncio.TimerHandle] = {}
        for opened in self._sockets:
            self._listen(opened)

    def close(self) -> None:
        for handle in self._resume.values():
            handle.cancel()
        for opened in self._sockets:
            self._loop.remove_reader(opened)
            opened.close()
        self._sockets, self._resume = [], {}

    def _listen(self, opened: socket.socket) -> None:
        self._loop.add_reader(opened, self._read, opened)

    def _read(self, opened: socket.socket) -> None:
        self._loop.remove_reader(opened)
        self._resume[opened] = self._loop.call_later(ANNOUNCEMENT_PAUSE_S, self._listen, opened)
        with contextlib.suppress(OSError):
            data, source = opened.recvfrom(_MAX_DATAGRAM)
            self._heard(data, source[0].partition("%")[0])


def _on_link(gateway: Gateway, kind: socket.SocketKind) -> socket.socket:
    """A socket that reaches what is on our links, and for IPv4 nothing beyond. Raises OSError."""
    made = socket.socket(socket.AF_INET if gateway.own.version == 4 else socket.AF_INET6, kind)
    made.setblocking(False)
    if made.family == socket.AF_INET:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
    return made


def _bound(gateway: Gateway) -> socket.socket:
    """The same for datagrams, at our own address on the gateway's link. Raises OSError.

    For TCP the kernel chooses the address: a confined node may bind no TCP port at all.
    """
    made = _on_link(gateway, socket.SOCK_DGRAM)
    try:
        if made.family == socket.AF_INET:
            made.bind((str(gateway.own), 0))
        else:
            made.bind((str(gateway.own), 0, 0, gateway.interface if gateway.own.is_link_local else 0))
    except BaseException:
        made.close()
        raise
    return made


def _address(gateway: Gateway, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    if gateway.address.version == 4:
        return str(gateway.address), port
    return str(gateway.address), port, 0, gateway.interface if gateway.address.is_link_local else 0


def _listener(family: socket.AddressFamily, host: str) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, pcp_messages.CLIENT_PORT))
    except BaseException:
        made.close()
        raise
    return made
