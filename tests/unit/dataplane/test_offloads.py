"""What the engine tells of its sockets."""

import socket
from collections.abc import Iterator

import pytest

from dhtvpn.dataplane.offloads import socket_offloads
from dhtvpn.dataplane.sockets import prepare


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


def test_this_kernel(udp: socket.socket) -> None:
    assert socket_offloads([udp], [prepare(udp, receive=True)], receive=True) == (
        "udp_segment",
        "udp_gro",
        "kernel_demux",
    )


def test_sockets_that_only_send(udp: socket.socket) -> None:
    assert socket_offloads([udp], [prepare(udp, receive=False)], receive=False) == ("udp_segment",)


def test_what_one_family_lacks_is_not_named(udp: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as without:
        assert socket_offloads([udp, without], [True, False], receive=True) == ("kernel_demux",)


def test_no_socket_no_offload() -> None:
    assert socket_offloads([], [], receive=True) == ()
