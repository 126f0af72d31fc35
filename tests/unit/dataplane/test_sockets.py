"""Addresses as the kernel spells them, runs as the kernel cuts them, options as the kernel takes them."""

import errno
import os
import socket
import sys

import pytest
from engines_in_memory import FakeSocket

from dhtvpn.dataplane import sockets
from dhtvpn.endpoint import Endpoint


def test_addresses_for_socket_calls() -> None:
    assert sockets.raw_address(Endpoint("192.0.2.1", 7)) == (socket.AF_INET, ("192.0.2.1", 7))
    assert sockets.raw_address(Endpoint("2001:db8::1", 7)) == (socket.AF_INET6, ("2001:db8::1", 7, 0, 0))


@pytest.mark.parametrize(
    ("ancillary", "stride"),
    [
        ([], 3000),
        ([(sockets.SOL_UDP, sockets.UDP_GRO, (1452).to_bytes(4, "little"))], 1452),
        ([(sockets.SOL_UDP, sockets.UDP_GRO, (1452).to_bytes(2, "little"))], 1452),
        ([(sockets.SOL_UDP, sockets.UDP_GRO, bytes(4))], 3000),
        ([(sockets.SOL_UDP, sockets.UDP_GRO, b"")], 3000),
        ([(socket.SOL_SOCKET, sockets.UDP_GRO, b"\1\0\0\0")], 3000),
    ],
)
def test_the_length_of_each_datagram_of_a_run(ancillary: list[tuple[int, int, bytes]], stride: int) -> None:
    assert sockets.received(ancillary, 3000) == (stride, 0)


@pytest.mark.parametrize(
    ("ancillary", "ecn"),
    [
        ((socket.IPPROTO_IP, socket.IP_TOS, b"\x03"), 3),
        ((socket.IPPROTO_IP, socket.IP_TOS, b"\xb9"), 1),
        ((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, (0xBA).to_bytes(4, sys.byteorder)), 2),
        ((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, bytes(4)), 0),
        ((socket.SOL_SOCKET, socket.IP_TOS, b"\x03"), 0),
        ((socket.IPPROTO_IP, socket.IP_TOS, b""), 0),
    ],
)
def test_the_congestion_bits(ancillary: tuple[int, int, bytes], ecn: int) -> None:
    runs = (sockets.SOL_UDP, sockets.UDP_GRO, (1452).to_bytes(4, sys.byteorder))
    assert sockets.received([ancillary], 3000) == (3000, ecn)
    assert sockets.received([runs, ancillary], 3000) == (1452, ecn)


def test_a_shared_socket_keeps_its_options() -> None:
    shared = SettableSocket(("192.0.2.1", 1))
    assert sockets.prepare(shared, receive=False)  # type: ignore[arg-type]
    assert shared.options == []


def test_an_own_socket_gets_buffers_and_runs() -> None:
    own = SettableSocket(("192.0.2.1", 1))
    own.refused = {32, 33}  # without CAP_NET_ADMIN the forced sizes are refused
    assert sockets.prepare(own, receive=True)  # type: ignore[arg-type]
    assert [(option, value) for _, option, value in own.options] == [
        (socket.SO_RCVBUF, sockets.SOCKET_BUFFER),
        (socket.SO_SNDBUF, sockets.SOCKET_BUFFER),
        (sockets.UDP_GRO, 1),
        (13, 1),  # IP_RECVTOS
    ]


def test_a_kernel_without_runs_is_told() -> None:
    own = SettableSocket(("192.0.2.1", 1))
    own.refused = {sockets.UDP_GRO, sockets.UDP_SEGMENT}
    assert not sockets.prepare(own, receive=True)  # type: ignore[arg-type]


class SettableSocket(FakeSocket):
    refused: frozenset[int] | set[int] = frozenset()

    def setblocking(self, blocking: bool) -> None:
        assert not blocking

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.getsockopt(level, option)
        super().setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        if option in self.refused:
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
        return 0


def test_a_link_local_address_is_told_with_its_interface() -> None:
    assert sockets.raw_address(Endpoint("fe80:3::1", 7)) == (socket.AF_INET6, ("fe80::1", 7, 0, 3))
