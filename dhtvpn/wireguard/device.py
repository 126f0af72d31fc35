"""Many peers behind one static key: takes handshake datagrams, hands out datagrams, events and timeouts.

The path of a datagram: length and type; mac1, or silence; under load a cookie, or a reply with one; then the
peer, by receiver index or by the static key inside an initiation; then ``peer.Peer`` does the handshake.
Whatever is wrong with it is counted under ``wireguard`` and nothing else happens.

    device = Device(private_key, os.urandom, drops=drops)
    peer = device.add_peer(public_key, preshared_key, keepalive_s=25.0)
    peer.set_endpoint(endpoint)
    peer.initiate(now, unix_time)
    # after every call: send datagrams_to_send(), carry out events(), sleep until next_timeout()
"""

from collections.abc import Callable

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError, NotFoundError
from dhtvpn.wireguard import noise
from dhtvpn.wireguard.constants import (
    KEY_SIZE,
    MAX_PEERS,
    TYPE_COOKIE_REPLY,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    UNKNOWN_PEERS_PER_S,
)
from dhtvpn.wireguard.cookie import MacChecker
from dhtvpn.wireguard.events import (
    EndpointLearned,
    Event,
    HandshakeFailed,
    KeypairReady,
    KeypairsErased,
    SendKeepalive,
    UnknownPeer,
)
from dhtvpn.wireguard.indices import IndexTable
from dhtvpn.wireguard.load import Budget, LoadMeter, SourceRates, UnderLoad
from dhtvpn.wireguard.messages import CookieReply, Initiation, Response, message_type
from dhtvpn.wireguard.peer import Peer, Surroundings

__all__ = [
    "Device",
    "EndpointLearned",
    "Event",
    "HandshakeFailed",
    "KeypairReady",
    "KeypairsErased",
    "Peer",
    "SendKeepalive",
    "UnknownPeer",
]


class Device:
    """The control side of WireGuard. Not a line of it blocks, and no datagram makes it raise."""

    def __init__(
        self,
        private_key: bytes,
        random_bytes: Callable[[int], bytes],
        *,
        drops: Drops,
        under_load: UnderLoad | None = None,
    ) -> None:
        """``under_load`` is asked once per handshake message with a valid mac1; the default counts them.
        Raises ValueError for a private key that is not 32 bytes long."""
        local = noise.LocalStatic.of(private_key)
        indices: IndexTable[Peer] = IndexTable(random_bytes)
        self._around = Surroundings(local, random_bytes, indices)
        self._peers: dict[bytes, Peer] = {}
        self._checker = MacChecker(local.public_key, random_bytes)
        self._under_load: UnderLoad = LoadMeter() if under_load is None else under_load
        self._rates = SourceRates()
        self._unknown = Budget(UNKNOWN_PEERS_PER_S)
        self._drops = drops

    @property
    def public_key(self) -> bytes:
        """Our own, 32 bytes."""
        return self._around.local.public_key

    @property
    def index_tag(self) -> int:
        """The upper 16 bits of every receiver index of ours, for a filter that drops everything else."""
        return self._around.indices.tag

    @property
    def peers(self) -> list[Peer]:
        return list(self._peers.values())

    def add_peer(self, public_key: bytes, preshared_key: bytes, keepalive_s: float | None = None) -> Peer:
        """Let the holder of ``public_key`` make sessions with us; a known peer gets the new settings.

        Raises ValueError for wrong lengths, our own key or more than MAX_PEERS, DecodeError "low_order" for
        a key that is no proper point.
        """
        if len(public_key) != KEY_SIZE or len(preshared_key) != KEY_SIZE:
            raise ValueError(f"public and preshared keys have {KEY_SIZE} bytes")
        if public_key == self.public_key:
            raise ValueError("a device cannot be its own peer")
        peer = self._peers.get(public_key)
        if peer is not None:
            peer.preshared_key = preshared_key
            peer.keepalive_s = keepalive_s
            return peer
        if len(self._peers) >= MAX_PEERS:
            raise ValueError(f"a device has at most {MAX_PEERS} peers")
        peer = Peer(public_key, preshared_key, keepalive_s, self._around)
        self._peers[public_key] = peer
        return peer

    def peer(self, public_key: bytes) -> Peer:
        """Raises NotFoundError."""
        peer = self._peers.get(public_key)
        if peer is None:
            raise NotFoundError("no such tunnel peer")
        return peer

    def remove_peer(self, public_key: bytes) -> None:
        """Forget a peer with its keys; an unknown one is ignored."""
        peer = self._peers.pop(public_key, None)
        if peer is not None:
            peer.stop()

    # The network

    def handle_datagram(self, data: bytes, source: Endpoint, now: float, unix_time: float) -> None:
        """A datagram of type 1, 2 or 3. Anything else, or anything wrong with it, is counted and dropped."""
        try:
            self._handle(data, source, now)
        except DecodeError as error:
            self._drops.count("wireguard", error.reason)

    def _handle(self, data: bytes, source: Endpoint, now: float) -> None:
        kind = message_type(data)
        if kind == TYPE_COOKIE_REPLY:
            reply = CookieReply.unpack(data)
            self._owner(reply.receiver).handle_cookie_reply(reply, now)
            return
        if not self._checker.mac1_valid(data):
            raise DecodeError("mac1")
        if self._under_load(now):
            self._check_cookie(data, source, now)
        if kind == TYPE_INITIATION:
            self._handle_initiation(Initiation.unpack(data), source, now)
        elif kind == TYPE_RESPONSE:
            response = Response.unpack(data)
            self._owner(response.receiver).handle_response(response, source, now)

    def _check_cookie(self, data: bytes, source: Endpoint, now: float) -> None:
        if not self._checker.mac2_valid(data, source, now):
            self._around.datagrams.append((self._checker.reply(data, source, now), source))
            raise DecodeError("no_cookie")
        if not self._rates.allow(source, now):
            raise DecodeError("rate")

    def _handle_initiation(self, message: Initiation, source: Endpoint, now: float) -> None:
        received = noise.ReceivedInitiation(self._around.local, message)
        peer = self._peers.get(received.static)
        if peer is None:
            if self._unknown.take(now):
                self._around.events.append(UnknownPeer(received.static))
            raise DecodeError("stranger")
        peer.handle_initiation(received, source, now)

    def _owner(self, index: int) -> Peer:
        peer = self._around.indices.owner(index)
        if peer is None:
            raise DecodeError("index")
        return peer

    # Time and the way out

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` has something to do, in monotonic seconds; may be past already."""
        due = (peer.timers.due_at for peer in self._peers.values())
        return min((at for at in due if at is not None), default=None)

    def handle_timeout(self, now: float, unix_time: float) -> None:
        """Do what is due by ``now``. Harmless when nothing is."""
        for peer in self._peers.values():
            if peer.timers.due_at is not None and peer.timers.due_at <= now:
                peer.handle_timeout(now, unix_time)

    def datagrams_to_send(self) -> list[tuple[bytes, Endpoint]]:
        """Take what is to be sent, in order."""
        datagrams, self._around.datagrams = self._around.datagrams, []
        return datagrams

    def events(self) -> list[Event]:
        """Take what happened, in order."""
        events, self._around.events = self._around.events, []
        return events
