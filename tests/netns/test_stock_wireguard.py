"""The wire is WireGuard's: wireguard-go of Debian, configured by hand, talks to a node."""

import hashlib
import socket
import threading
from collections.abc import Callable

import pytest
from joined import eventually, overlay, peer_of, pings, status
from stock_peers import configure, configure_without_endpoint, handshakes, interface, set_peer, stock_peer

from dhtvpn.lab import topologies
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]


@pytest.mark.parametrize("initiator", ["stock", "node"])
def test_wireguard_go_completes_a_handshake_and_pings(lab: Lab, initiator: str) -> None:
    network = lab(topologies.PUBLIC)
    network.start_bootstraps()
    server, desk = network.node("server"), network.node("desk")
    network.join("server", network.create("server"))
    with stock_peer(desk) as (private, public):
        setup = server.cli_json("stock-peer", "add", "phone", "--public-key", public)
        configure(desk, private, setup, keepalive="1" if initiator == "node" else "off")
        ipv4, ipv6 = overlay(server)
        if initiator == "stock":
            assert pings(desk, ipv4).returncode == 0
            assert pings(desk, ipv6).returncode == 0
            assert pings(desk, ipv4, "-M", "do", "-s", str(1420 - 28)).returncode == 0
        else:
            eventually(lambda: peer_of(server, "phone")["state"] == "connected", "the stock peer called")
            assert pings(server, str(setup["ipv4"])).returncode == 0
            # The stock side forgets the session; the node's next packet makes it call.
            set_peer(desk, setup, "remove")
            configure_without_endpoint(desk, setup)
            eventually(
                lambda: pings(server, str(setup["ipv4"])).returncode == 0, "the node's own handshake", 40
            )
            eventually(lambda: handshakes(desk) > 0, "wireguard-go saw it")
        assert pings(server, str(setup["ipv6"])).returncode == 0
        eventually(lambda: peer_of(server, "phone")["tx_bytes"] > 0, "the engine's next report")
        peer = peer_of(server, "phone")
        assert peer["state"] == "connected" and peer["rx_bytes"] > 0
        assert pings(desk, ipv4, "-I", interface(desk)).returncode == 0


def test_a_wrong_preshared_key_and_a_wrong_source_get_nothing(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    network.start_bootstraps()
    server, desk = network.node("server"), network.node("desk")
    network.join("server", network.create("server"))
    ipv4 = overlay(server)[0]
    with stock_peer(desk) as (private, public):
        setup = server.cli_json("stock-peer", "add", "phone", "--public-key", public)
        wrong = {**setup, "preshared_key": desk.run(["wg", "genpsk"]).stdout.strip()}
        configure(desk, private, wrong)
        assert pings(desk, ipv4).returncode != 0
        assert handshakes(desk) == 0
        (desk.directory / "psk").write_text(str(setup["preshared_key"]))
        set_peer(desk, setup, "preshared-key", str(desk.directory / "psk"))
        eventually(lambda: pings(desk, ipv4).returncode == 0, "the right key")
        desk.run(["ip", "address", "add", "10.99.99.99/32", "dev", interface(desk)])
        assert pings(desk, ipv4, "-I", "10.99.99.99").returncode != 0, "a source that is not allowed"
        assert status(server)["drops"]["dataplane.source_not_allowed"] >= 1


def test_a_tcp_transfer_each_way_with_wireguard_go(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    network.start_bootstraps()
    server, desk = network.node("server"), network.node("desk")
    network.join("server", network.create("server"))
    with stock_peer(desk) as (private, public):
        setup = server.cli_json("stock-peer", "add", "phone", "--public-key", public)
        configure(desk, private, setup)
        address = overlay(server)[0]
        content = hashlib.shake_128(b"content").digest(20_000_000)
        echoed = _echo(desk, server, address, content)
    assert hashlib.blake2b(echoed).digest() == hashlib.blake2b(content).digest()


def _echo(client: Machine, server: Machine, address: str, content: bytes) -> bytes:
    """Send ``content`` and have it sent back, all through one TCP connection."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(60)
            while piece := connection.recv(1 << 16):
                connection.sendall(piece)

    with server.socket(kind=socket.SOCK_STREAM) as listener, client.socket(kind=socket.SOCK_STREAM) as out:
        listener.settimeout(60)
        listener.bind((address, 0))
        listener.listen(1)
        echoing = threading.Thread(target=serve)
        echoing.start()
        out.settimeout(60)
        out.connect((address, listener.getsockname()[1]))

        def send() -> None:
            out.sendall(content)
            out.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        pieces = []
        while piece := out.recv(1 << 16):
            pieces.append(piece)
        sending.join()
        echoing.join()
    return b"".join(pieces)
