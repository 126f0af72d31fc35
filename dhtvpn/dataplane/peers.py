"""The engine's peers: by number (commands), by allowed IP (packets out), by receiver index (datagrams in)."""

from collections import deque
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple

from dhtvpn.dataplane.loss_watch import LossWatch
from dhtvpn.dataplane.messages import Activity
from dhtvpn.dataplane.sockets import Ancillary, RawAddress, raw_address
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.allowed_ips import AllowedIps
from dhtvpn.mesh.relay_wire import DATA_MARK, data_header, frame_header
from dhtvpn.mesh.relayed import place_of, relayed
from dhtvpn.wireguard.keypair import Keypair
from dhtvpn.wireguard.transport import PeerTransport

MAX_QUEUED_PACKETS: Final = 64  # per peer, ours: a handshake takes a round trip, and TCP starts with ten
MAX_QUEUED_BYTES: Final = 128 * 1024  # per peer, ours: 64 packets of 1420 bytes and some
MAX_QUEUED_TOTAL: Final = 8 << 20  # bytes over all peers, ours
QUEUE_LIFETIME_S: Final = 10.0  # ours: what waited longer has been sent again by then
HANDSHAKE_ASK_S: Final = 1.0  # ours: how often NeedHandshake is repeated for a peer


class Via:
    """A relay: a volunteer at an address, or the member with peer number ``carrier`` and the members
    ``through`` beyond it."""

    __slots__ = ("_places", "address", "carrier", "family", "number", "through")

    def __init__(
        self, number: int, endpoint: Endpoint | None, carrier: int | None, through: tuple[bytes, ...] = ()
    ) -> None:
        self.number, self.carrier, self.through = number, carrier, through
        self.family = 0
        self.address: RawAddress | None = None
        if endpoint is not None:
            self.family, self.address = raw_address(endpoint)
        self._places: dict[int, RawAddress] = {}

    def place_of(self, peer: int) -> RawAddress:
        """What stands for the source address of peer number ``peer`` beyond this relay."""
        place = self._places.get(peer)
        if place is None:
            place = self._places[peer] = raw_address(relayed(self.number, peer))[1]
        return place


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
        "header",
        "heard_elsewhere_at",
        "indices",
        "keepalive_received",
        "keepalive_sent",
        "loss",
        "mtu",
        "number",
        "queue",
        "queued_bytes",
        "received",
        "relay_ids",
        "rx_bytes",
        "sent",
        "source",
        "strayed_bytes",
        "trains",
        "transport",
        "tx_bytes",
        "udp_trains",
        "via",
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
        """Where it is, as the kernel would tell; for a place beyond a relay what stands for it."""
        self.family = 0
        self.via: Via | None = None
        """The relay that the way to it leads through."""
        self.relay_ids: tuple[bytes, ...] = ()
        self.header = b""
        """What stands before its datagrams on the way through a relay."""
        self.heard_elsewhere_at: float | None = None
        self.strayed_bytes = 0
        self.source: list[Ancillary] = []
        """The ancillary data that makes datagrams leave from an address of ours; empty: the kernel picks."""
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
        """Send straight to ``endpoint`` from now on, which is no place beyond a relay."""
        if endpoint != self.endpoint:
            self.blocks_wanted = False  # of another way it has said nothing yet
        self.endpoint = endpoint
        self.family, self.address = raw_address(endpoint)
        self.via, self.source = None, []

    def roam(self, family: int, address: RawAddress) -> bool:
        """Take a source address as the kernel gave it. False where it is the endpoint that we have."""
        endpoint = Endpoint.from_socket(address)
        moved = endpoint != self.endpoint
        if moved:
            self.source, self.blocks_wanted = [], False
        self.endpoint, self.family, self.address, self.via = endpoint, family, address, None
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
            strayed_bytes=self.strayed_bytes,
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
        self.vias: dict[int, Via] = {}
        self.via_at: dict[tuple[str, int], Via] = {}
        """Volunteers by their address."""
        self.via_of_carrier: dict[int, Via] = {}
        """Members that relay, by their peer number."""
        self.by_relay_id: dict[bytes, Peer] = {}
        self.own_headers: frozenset[bytes] = frozenset()
        """What stands before a data message that is for us, when it comes from a volunteer."""
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
            self.aim(peer, endpoint)
        return peer

    def aim(self, peer: Peer, endpoint: Endpoint) -> None:
        """Send to ``endpoint`` from now on, which may be a place beyond a relay."""
        place = place_of(endpoint)
        peer.set_endpoint(endpoint)
        if place is not None:
            peer.via = self.vias.get(place.via)
            if peer.via is None or not peer.relay_ids:
                peer.via, peer.address = None, None  # a relay that is gone: nowhere
        self._set_header(peer)

    def set_relay_ids(self, peer: Peer, relay_ids: tuple[bytes, ...]) -> None:
        """What relays call the peer: now, and in the other epochs that members may be in."""
        self._forget_relay_ids(peer)
        peer.relay_ids = relay_ids
        for relay_id in relay_ids:
            self.by_relay_id[relay_id] = peer
        self._set_header(peer)

    def _forget_relay_ids(self, peer: Peer) -> None:
        for relay_id in peer.relay_ids:
            if self.by_relay_id.get(relay_id) is peer:
                del self.by_relay_id[relay_id]

    def _set_header(self, peer: Peer) -> None:
        peer.header = b""
        if peer.via is None or not peer.relay_ids:
            return
        if peer.via.carrier is None:
            peer.header = data_header(peer.relay_ids[0])
        else:
            peer.header = frame_header(DATA_MARK, (*peer.via.through, peer.relay_ids[0]))

    def set_via(
        self, number: int, endpoint: Endpoint | None, carrier: int | None, through: tuple[bytes, ...]
    ) -> None:
        """There is a relay of this number, or another one than before: who is beyond it stays so."""
        beyond = [peer for peer in self.by_number.values() if peer.via and peer.via.number == number]
        self.remove_via(number)
        via = self.vias[number] = Via(number, endpoint, carrier, through)
        if via.address is not None:
            self.via_at[via.address[0], via.address[1]] = via
        if carrier is not None and not through:
            self.via_of_carrier[carrier] = via
        for peer in beyond:
            if peer.endpoint is not None:
                self.aim(peer, peer.endpoint)

    def remove_via(self, number: int) -> None:
        """Who is beyond it is nowhere until there is another endpoint."""
        via = self.vias.pop(number, None)
        if via is None:
            return
        self.via_at = {address: known for address, known in self.via_at.items() if known is not via}
        if via.carrier is not None and self.via_of_carrier.get(via.carrier) is via:
            del self.via_of_carrier[via.carrier]
        for peer in self.by_number.values():
            if peer.via is via:
                peer.via = peer.address = None

    def remove(self, number: int) -> None:
        """Forget peer ``number``; nothing happens when there is none."""
        peer = self.by_number.pop(number, None)
        if peer is None:
            return
        self.allowed_ips.remove_peer(number)
        self._forget_relay_ids(peer)
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
