"""The pure core at a socket of its own: a device, a transport, and a clock that a test can put forward.

What the daemon and the engine do between them is done here in one place, so that 120 s pass in no time.
"""

import base64
import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import IPv4Address

from engines_in_memory import ipv4
from joined import eventually
from stock_peers import interface, secret_file, stock_peer

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.lab.machine import Machine
from dhtvpn.packet.checksum import internet_checksum
from dhtvpn.wireguard.constants import TYPE_DATA
from dhtvpn.wireguard.device import Device, KeypairReady, KeypairsErased, SendKeepalive
from dhtvpn.wireguard.keypair import Keypair
from dhtvpn.wireguard.load import UnderLoad
from dhtvpn.wireguard.transport import PeerTransport

OUR_ADDRESS, THEIR_ADDRESS = IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2")
OUR_PORT, THEIR_PORT = 4444, 5555
NO_PSK = bytes(32)
MTU = 1420
THEIR_INITIATION_INTERVAL_S = 0.021
"""wireguard-go drops an initiation that comes within 20 ms after one that it has answered."""

ECHO_IDENTIFIER = 77
ECHO_REPLY, ECHO_REQUEST = 0, 8


class Core:
    """Our side of one peer. Every datagram of either side is kept in ``sent`` and ``received``.

    While ``hold`` is set, data messages that come are put into ``held`` instead of being opened: the network
    keeps them back until the test gives them to :meth:`take`.
    """

    def __init__(
        self,
        machine: Machine,
        private: bytes,
        their_public: bytes,
        psk: bytes,
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
        under_load: UnderLoad | None = None,
    ) -> None:
        self.drops = Drops()
        self.shift = 0.0
        self.device = Device(private, random_bytes, drops=self.drops, under_load=under_load)
        self.peer = self.device.add_peer(their_public, psk)
        self.transport = PeerTransport(MTU, self.peer.keypair_confirmed)
        self.socket = machine.socket()
        self.socket.bind(("0.0.0.0", OUR_PORT))
        self.keypairs: list[Keypair] = []
        self.packets: list[bytes] = []
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self.hold = False
        self.held: list[bytes] = []

    def close(self) -> None:
        self.socket.close()

    @property
    def now(self) -> float:
        return time.monotonic() + self.shift

    @property
    def unix_time(self) -> float:
        return time.time() + self.shift

    def forward(self, seconds: float) -> None:
        """Put our clock forward. wireguard-go's own goes on by what it wants between two initiations."""
        time.sleep(THEIR_INITIATION_INTERVAL_S)
        self.shift += seconds

    def count(self, kind: int) -> int:
        """How many datagrams of a message type have come."""
        return sum(datagram[0] == kind for datagram in self.received)

    def dropped(self, name: str) -> int:
        """How many were dropped for a reason, by its full name."""
        return self.drops.as_dict().get(name, 0)

    def initiate(self) -> None:
        self.peer.initiate(self.now, self.unix_time)
        self._flush()

    def turn(self, wait_s: float = 0.02) -> None:
        """Do what is due, then take what has come, if anything comes within ``wait_s``."""
        self.device.handle_timeout(self.now, self.unix_time)
        self._flush()
        while select.select([self.socket], [], [], wait_s)[0]:
            data, address = self.socket.recvfrom(65535)
            self.received.append(data)
            if data[0] == TYPE_DATA and self.hold:
                self.held.append(data)
            elif data[0] == TYPE_DATA:
                self.take(data)
            else:
                self.device.handle_datagram(data, Endpoint(*address), self.now, self.unix_time)
                self._flush()
            wait_s = 0.0

    def take(self, datagram: bytes) -> None:
        """Open a data message."""
        try:
            plaintext = self.transport.open(datagram, self.now)
        except DecodeError as error:
            self.drops.count("dataplane", error.reason)
            return
        if plaintext:
            self.packets.append(plaintext)
            self.peer.data_received(self.now)
        else:
            self.peer.keepalive_received(self.now)
        self._flush()

    def seal(self, packet: bytes) -> bytes:
        datagram = self.transport.seal(packet, self.now)
        assert datagram is not None, "no keypair"
        return datagram

    def send(self, packet: bytes) -> None:
        self.put(self.seal(packet))
        self.peer.data_sent(self.now)
        self._flush()

    def put(self, datagram: bytes, endpoint: Endpoint | None = None) -> None:
        """Send a datagram as it is, to the peer's endpoint unless told otherwise."""
        destination = self.peer.endpoint if endpoint is None else endpoint
        assert destination is not None
        self.sent.append(datagram)
        self.socket.sendto(datagram, destination)

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = 15.0) -> None:
        """Turn until ``condition()`` is true."""

        def reached() -> object:
            self.turn()
            return condition()

        eventually(reached, what, timeout_s)

    def _flush(self) -> None:
        for data, endpoint in self.device.datagrams_to_send():
            self.put(data, endpoint)
        for event in self.device.events():
            match event:
                case KeypairReady():
                    self.keypairs.append(event.keypair)
                    self.transport.install(event.keypair)
                case KeypairsErased():
                    self.transport.erase()
                case SendKeepalive():
                    self.put(self.seal(b""))

    # Packets for the other side's kernel, and from it

    def ping(self, sequence: int) -> None:
        """Ask the kernel behind wireguard-go for an echo, and wait for the reply."""
        self.send(echo(ECHO_REQUEST, sequence))
        self.wait_reply(sequence)

    def wait_reply(self, sequence: int) -> None:
        self.until(lambda: self.replied(sequence), f"echo reply {sequence}")

    def replied(self, sequence: int) -> bool:
        wanted = struct.pack("!HH", ECHO_IDENTIFIER, sequence)
        return any(packet[20] == ECHO_REPLY and packet[24:28] == wanted for packet in self.packets)

    def answer_ping(self, theirs: Machine) -> None:
        """``ping`` runs behind wireguard-go: answer its first request, and see that it is content."""
        before = len(self.packets)
        ping = theirs.popen(["ping", "-n", "-c", "1", "-w", "20", str(OUR_ADDRESS)])
        self.until(lambda: requests(self.packets[before:]), "their echo request", 20)
        request = requests(self.packets[before:])[0]
        body = bytes([ECHO_REPLY]) + request[21 : int.from_bytes(request[2:4], "big")]
        self.send(ipv4(OUR_ADDRESS, THEIR_ADDRESS, _with_checksum(body), protocol=1))
        assert ping.wait(timeout=20) == 0


def requests(packets: list[bytes]) -> list[bytes]:
    return [packet for packet in packets if packet[9] == 1 and packet[20] == ECHO_REQUEST]


def echo(kind: int, sequence: int) -> bytes:
    """An ICMP echo packet from our side to theirs."""
    body = struct.pack("!BBHHH", kind, 0, 0, ECHO_IDENTIFIER, sequence) + b"over the core"
    return ipv4(OUR_ADDRESS, THEIR_ADDRESS, _with_checksum(body), protocol=1)


def _with_checksum(icmp: bytes) -> bytes:
    blank = icmp[:2] + bytes(2) + icmp[4:]
    return blank[:2] + internet_checksum(blank).to_bytes(2, "big") + blank[4:]


class Pair:
    """A core on ``ours`` and wireguard-go on ``theirs``, whose interface is up and knows our key."""

    def __init__(self, ours: Machine, theirs: Machine, core: Core) -> None:
        self.ours, self.theirs, self.core = ours, theirs, core
        self.endpoint = Endpoint(str(theirs.ipv4), THEIR_PORT)

    def our_endpoint_told(self) -> None:
        """wireguard-go may initiate from now on."""
        self.set("endpoint", f"{self.ours.ipv4}:{OUR_PORT}")

    def set(self, *words: str) -> None:
        """``wg set`` for our peer entry on their side."""
        key = base64.b64encode(self.core.device.public_key).decode()
        self.theirs.run(["wg", "set", interface(self.theirs), "peer", key, *words])

    def we_connect(self) -> None:
        self.core.peer.set_endpoint(self.endpoint)
        self.core.initiate()
        self.core.until(lambda: self.core.keypairs, "their response")


@contextmanager
def core_and_stock(
    ours: Machine,
    theirs: Machine,
    *,
    psk: bytes = NO_PSK,
    our_psk: bytes | None = None,
    private: bytes | None = None,
    random_bytes: Callable[[int], bytes] = os.urandom,
    under_load: UnderLoad | None = None,
) -> Iterator[Pair]:
    """``psk`` of zeros is none at all for wg; ``our_psk`` is ours where it shall differ."""
    with stock_peer(theirs) as (their_private, their_public):
        core = Core(
            ours,
            os.urandom(32) if private is None else private,
            base64.b64decode(their_public),
            psk if our_psk is None else our_psk,
            random_bytes=random_bytes,
            under_load=under_load,
        )
        with closing(core):
            pair = Pair(ours, theirs, core)
            name = interface(theirs)
            key_file = secret_file(theirs, "private", their_private)
            theirs.run(["wg", "set", name, "private-key", key_file, "listen-port", str(THEIR_PORT)])
            pair.set("allowed-ips", f"{OUR_ADDRESS}/32")
            if psk != NO_PSK:
                pair.set("preshared-key", secret_file(theirs, "psk", base64.b64encode(psk).decode()))
            theirs.run(["ip", "link", "set", name, "mtu", str(MTU), "up"])
            theirs.run(["ip", "address", "add", f"{THEIR_ADDRESS}/24", "dev", name])
            yield pair
