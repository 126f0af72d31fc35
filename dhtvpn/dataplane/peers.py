"""The engine's peers: by number (commands), by allowed IP (packets out), by receiver index (datagrams in)."""

from collections import deque
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple

from dhtvpn.dataplane.loss_watch import LossWatch
from dhtvpn.dataplane.messages import Activity
from dhtvpn.dataplane.sockets import RawAddress, raw_address
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.allowed_ips import AllowedIps
from dhtvpn.wireguard.keypair import Keypair
from dhtvpn.wireguard.transport import PeerTransport

MAX_QUEUED_PACKETS: Final = 64  # per peer, ours: a handshake takes a round trip, and TCP starts with ten
MAX_QUEUED_BYTES: Final = 128 * 1024  # per peer, ours: 64 packets of 1420 bytes and some
MAX_QUEUED_TOTAL: Final = 8 << 20  # bytes over all peers, ours
QUEUE_LIFETIME_S: Final = 10.0  # ours: what waited longer has been sent again by then
HANDSHAKE_ASK_S: Final = 1.0  # ours: how often NeedHandshake is repeated for a peer


class Waiting(NamedTuple):
    """What waits for a keypair: a packet with its virtio header, or the plaintext of a control frame."""

    data: bytes
    came: float
    is_packet: bool


class Peer:
    """One peer as the data plane sees it."""

    __slots__ = (
        "address",
        "blocks",
        "blocks_wanted",
        "endpoint",
        "family",
        "handshake_asked_at",
        "indices",
        "keepalive_received",
        "keepalive_sent",
        "loss",
        "mtu",
        "number",
        "queue",
        "queued_bytes",
        "received",
        "rx_bytes",
        "sent",
        "trains",
        "transport",
        "tx_bytes",
        "udp_trains",
        "watched",
    )

    def __init__(self, number: int, transport: PeerTransport) -> None:
        self.number = number
        self.transport = transport
        self.mtu = transport.mtu
        """Bytes of the longest inner packet that its path takes."""
        self.indices: tuple[int, ...] = ()
        """Our receiver indices that lead to this peer."""
        self.endpoint: Endpoint | None = None
        self.address: RawAddress | None = None
        self.family = 0
        self.trains = self.udp_trains = False
        """The peer takes trains of TCP, and packets with a begun checksum; trains of UDP."""
        self.blocks = self.blocks_wanted = False
        """The peer knows blocks; it wants them now."""
        self.loss = LossWatch()
        self.queue: deque[Waiting] = deque()
        self.queued_bytes = 0
        self.handshake_asked_at: float | None = None
        self.rx_bytes = self.tx_bytes = 0
        self.sent = self.received = self.keepalive_sent = self.keepalive_received = False
        self.watched = False
        """A keypair was installed and nothing has been received since."""

    def set_endpoint(self, endpoint: Endpoint) -> None:
        if endpoint != self.endpoint:
            self.blocks_wanted = False  # of another way it has said nothing yet
        self.endpoint = endpoint
        self.family, self.address = raw_address(endpoint)

    def roam(self, family: int, address: RawAddress) -> bool:
        """Take a source address as the kernel gave it. False where it is the endpoint that we have."""
        endpoint = Endpoint.from_socket(address)
        moved = endpoint != self.endpoint
        if moved:
            self.blocks_wanted = False
        self.endpoint, self.family, self.address = endpoint, family, address
        return moved

    def take_activity(self) -> Activity:
        """What happened since the last call."""
        activity = Activity(
            peer=self.number,
            sent=self.sent,
            received=self.received,
            rx_bytes=self.rx_bytes,
            tx_bytes=self.tx_bytes,
            endpoint=self.endpoint,
            keepalive_sent=self.keepalive_sent,
            keepalive_received=self.keepalive_received,
        )
        self.sent = self.received = self.keepalive_sent = self.keepalive_received = False
        return activity


class Peers:
    """All peers of the engine."""

    def __init__(self, on_confirmed: Callable[[Peer, int], None]) -> None:
        self.by_number: dict[int, Peer] = {}
        self.by_index: dict[int, Peer] = {}
        self.allowed_ips = AllowedIps()
        self.active: dict[int, Peer] = {}
        """Peers to which something happened that the control process was not told of."""
        self._on_confirmed = on_confirmed
        self._queued_total = 0
        self._mtu = 0

    def set_mtu(self, mtu: int) -> None:
        """The MTU in bytes of peers that are made from now on."""
        self._mtu = mtu

    def set_path_mtu(self, peer: Peer, mtu: int) -> None:
        """What the way to ``peer`` takes: longer packets are answered, and padding keeps to it."""
        peer.mtu = peer.transport.mtu = mtu

    def set(
        self, number: int, networks: Iterable[IPv4Network | IPv6Network], endpoint: Endpoint | None
    ) -> Peer:
        """Make peer ``number``, or give the one there is these networks instead of its own."""
        peer = self.by_number.get(number)
        if peer is None:
            peer = self.by_number[number] = self._make(number)
        else:
            self.allowed_ips.remove_peer(number)
        for network in networks:
            self.allowed_ips.insert(network, number)
        if endpoint is not None:
            peer.set_endpoint(endpoint)
        return peer

    def remove(self, number: int) -> None:
        """Forget peer ``number``; nothing happens when there is none."""
        peer = self.by_number.pop(number, None)
        if peer is None:
            return
        self.allowed_ips.remove_peer(number)
        self.erase_keypairs(peer)
        self.active.pop(number, None)

    def install_keypair(self, peer: Peer, keypair: Keypair, now: float) -> None:
        """Take the keypair of a completed handshake."""
        peer.transport.install(keypair)
        peer.watched = True
        peer.handshake_asked_at = now  # a responder's keypair needs the initiator's first message: no hurry
        self._reindex(peer)

    def erase_keypairs(self, peer: Peer) -> None:
        """Forget the peer's keypairs, and what waited for one."""
        peer.transport.erase()
        peer.handshake_asked_at = None
        self._account(peer, -peer.queued_bytes)
        peer.queue.clear()
        self._reindex(peer)

    def take_activity(self, peer: Peer) -> Activity:
        """What happened to the peer since the last call."""
        self.active.pop(peer.number, None)
        return peer.take_activity()

    def enqueue(self, peer: Peer, waiting: Waiting) -> int:
        """Keep ``waiting`` until a keypair comes, and tell how many older ones had to go for it."""
        size, dropped, queue = len(waiting.data), 0, peer.queue
        if size > MAX_QUEUED_BYTES:
            return 1
        while queue and (len(queue) >= MAX_QUEUED_PACKETS or peer.queued_bytes + size > MAX_QUEUED_BYTES):
            self._account(peer, -len(queue.popleft().data))
            dropped += 1
        if self._queued_total + size > MAX_QUEUED_TOTAL:
            return dropped + 1
        queue.append(waiting)
        self._account(peer, size)
        return dropped

    def take_queue(self, peer: Peer, now: float) -> list[Waiting]:
        """What waited, oldest first, less what is too old; the queue is empty afterwards."""
        fresh = [waiting for waiting in peer.queue if now - waiting.came <= QUEUE_LIFETIME_S]
        self._account(peer, -peer.queued_bytes)
        peer.queue.clear()
        return fresh

    def handshake_wanted(self, peer: Peer, now: float) -> bool:
        """Whether to ask for a handshake now; remembers that it was asked for."""
        asked_at = peer.handshake_asked_at
        if asked_at is not None and now - asked_at < HANDSHAKE_ASK_S:
            return False
        peer.handshake_asked_at = now
        return True

    def _make(self, number: int) -> Peer:
        def confirmed(local_index: int) -> None:
            self._reindex(peer)
            self._on_confirmed(peer, local_index)

        peer = Peer(number, PeerTransport(self._mtu, confirmed))
        return peer

    def _reindex(self, peer: Peer) -> None:
        """Have exactly the indices that the transport knows lead to the peer."""
        for index in peer.indices:
            if self.by_index.get(index) is peer:
                del self.by_index[index]
        peer.indices = tuple(peer.transport.indices())
        for index in peer.indices:
            self.by_index[index] = peer

    def _account(self, peer: Peer, size: int) -> None:
        peer.queued_bytes += size
        self._queued_total += size
