"""The tunnels of one node: handshakes are made here, data messages are sealed and opened in the engine.

What arrives of handshake datagrams goes into the WireGuard core; what the core wants sent goes to the
port; the keypairs that it makes go to the engine. The engine tells what happened to the data
(sent, received, confirmed, no key), and those occasions drive the core's timers.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, assert_never

from dhtvpn.dataplane import messages as engine_events
from dhtvpn.dataplane.process import EngineProcess
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.mesh import frames
from dhtvpn.mesh.path_mtu import DEFAULT_MTU, RELAYED_MTU
from dhtvpn.mesh.peers import Peer, PeerState, PeerTable
from dhtvpn.mesh.relay_wire import HANDSHAKE_MARK
from dhtvpn.mesh.relayed import is_relayed, place_of
from dhtvpn.wireguard import events as wg
from dhtvpn.wireguard.device import Device

log = logging.getLogger(__name__)


ANSWERED_S: Final = 1.0
"""The initiator's first packet follows our answer within a round trip. If it does not, the answer is lost."""


class TunnelListener(Protocol):
    """Who is told what happens to the tunnels."""

    def session_up(self, peer: Peer) -> None: ...

    def frame_received(self, peer: Peer, frame: frames.Frame) -> None: ...

    def endpoint_moved(self, peer: Peer) -> None: ...

    def heard_elsewhere(self, peer: Peer, endpoint: Endpoint) -> None: ...

    def relayed_handshake(self, peer: Peer, frame: bytes) -> None: ...

    def packets_moved(self, peer: Peer) -> None: ...

    def probe_refused(self, peer: Peer, size: int) -> None: ...

    def stranger_knocked(self) -> None: ...

    def address_wanted(self, address: engine_events.Address) -> None: ...

    def packets_wait(self, peer: Peer) -> None: ...


class Tunnels:
    """One WireGuard device, split between this process and the engine."""

    def __init__(
        self,
        *,
        device: Device,
        engine: EngineProcess,
        table: PeerTable,
        send: Callable[[bytes, Endpoint], object],
        drops: Drops,
        listener: TunnelListener,
        features: int,
        source_for: Callable[[Endpoint], engine_events.Address | None] = lambda _: None,
    ) -> None:
        """``source_for``: the address of ours from which an endpoint expects us, where there are several."""
        self._device = device
        self._engine = engine
        self._table = table
        self._send = send
        self._drops = drops
        self._listener = listener
        self._features = features
        self._source_for = source_for
        self._timer: asyncio.TimerHandle | None = None
        self._arming: asyncio.Handle | None = None
        self._asked: tuple[engine_events.Network, ...] = ()
        self._vias: dict[int, tuple[Endpoint | None, int | None, tuple[bytes, ...]]] = {}
        self._forwarded = 0
        self._own_relay_ids: tuple[bytes, ...] = ()
        self.way_heard: Callable[[Peer, Endpoint], Endpoint] = lambda _, endpoint: endpoint
        """The path from here that stands for the one that a frame of a peer came by."""

    def add(self, peer: Peer, preshared_key: bytes, timestamp: bytes | None) -> None:
        """Let ``peer`` make sessions. ``timestamp`` is the greatest TAI64N stamp seen of it before."""
        core = self._device.add_peer(peer.tunnel_key, preshared_key, None)
        if timestamp is not None:
            core.greatest_timestamp = timestamp
        self._engine.set_peer(peer.number, peer.allowed_ips, peer.endpoint)
        if peer.relay_ids:
            self._engine.set_relay_ids(peer.number, peer.relay_ids)
        self._flush()

    def update_allowed_ips(self, peer: Peer) -> None:
        self._engine.set_peer(peer.number, peer.allowed_ips, peer.endpoint)

    def resolve(self, networks: Sequence[engine_events.Network]) -> None:
        """Have the listener asked for addresses inside ``networks`` that nobody has; empty: for none."""
        self._asked = tuple(networks)
        self._engine.resolve(self._asked)

    def no_member(self, address: engine_events.Address) -> None:
        """Nobody has the address that was asked for."""
        self._engine.no_member(address)

    def remove(self, peer: Peer) -> None:
        self._device.remove_peer(peer.tunnel_key)
        self._engine.remove_peer(peer.number)
        self._flush()

    def aim(self, peer: Peer, endpoint: Endpoint) -> None:
        """Send this peer's datagrams to ``endpoint`` from now on."""
        peer.endpoint = endpoint
        self._device.peer(peer.tunnel_key).set_endpoint(endpoint)
        self._steer(peer, endpoint)

    def _steer(self, peer: Peer, endpoint: Endpoint) -> None:
        self._engine.set_endpoint(peer.number, endpoint)
        source = self._source_for(endpoint)
        if source is not None:
            self._engine.set_source(peer.number, source)

    def network_changed(self, peer: Peer) -> None:
        """Let the kernel choose anew from where to send."""
        if peer.endpoint is not None:
            self._engine.set_endpoint(peer.number, peer.endpoint)

    def set_via(
        self, via: int, endpoint: Endpoint | None, carrier: int | None, through: tuple[bytes, ...] = ()
    ) -> None:
        """There is a relay, called ``via``: a volunteer at ``endpoint``, or peer number ``carrier`` and the
        members ``through`` beyond it."""
        self._vias[via] = endpoint, carrier, through
        self._engine.set_via(via, endpoint, carrier, through)
        for peer in self._table.all():
            place = None if peer.endpoint is None else place_of(peer.endpoint)
            if peer.endpoint is not None and place is not None and place.via == via:
                self._engine.set_endpoint(peer.number, peer.endpoint)

    def forward(self, octets_per_s: int) -> None:
        """Send on relay frames of members, so many octets a second; 0: none."""
        self._forwarded = octets_per_s
        self._engine.forward(octets_per_s)

    def remove_via(self, via: int) -> None:
        """Use relay ``via`` no more."""
        if self._vias.pop(via, None) is not None:
            self._engine.remove_via(via)

    def set_own_relay_ids(self, relay_ids: Sequence[bytes]) -> None:
        """What relays call us, in every epoch that members may be in."""
        self._own_relay_ids = tuple(relay_ids)
        self._engine.set_own_relay_ids(relay_ids)

    def set_relay_ids(self, peer: Peer, relay_ids: tuple[bytes, ...]) -> None:
        """What relays call ``peer``, now first of all."""
        peer.relay_ids = relay_ids
        self._engine.set_relay_ids(peer.number, relay_ids)

    def send_relay_frame(self, peer: Peer, frame: bytes) -> None:
        """Give ``peer`` a relay frame for somebody else."""
        self._engine.send(peer.number, frame)

    def initiate(self, peer: Peer) -> None:
        """Start a handshake with ``peer`` at its endpoint, in place of one that is under way elsewhere."""
        self._device.peer(peer.tunnel_key).initiate(time.monotonic(), time.time(), force=True)
        self._flush()

    def knock(self, peer: Peer, endpoints: Sequence[Endpoint]) -> None:
        """Send one handshake initiation to every one of ``endpoints``: the first copy that gets through
        is answered, the answer tells where the peer is, and the other copies are replays to it."""
        core = self._device.peer(peer.tunnel_key)
        core.set_endpoint(endpoints[0])
        core.initiate(time.monotonic(), time.time(), force=True)
        for data, endpoint in self._device.datagrams_to_send():
            for destination in endpoints if endpoint == endpoints[0] else (endpoint,):
                self._send(data, destination)
        if peer.state is PeerState.CONNECTED and peer.endpoint is not None:
            core.set_endpoint(peer.endpoint)  # new keys are made there, unless the knock is answered
        self._flush()

    def answered_lately(self, peer: Peer) -> bool:
        """Whether we have just answered an initiation of the peer: its session is about to be used."""
        answered_at = self._device.peer(peer.tunnel_key).answered_at
        return answered_at is not None and time.monotonic() - answered_at < ANSWERED_S

    def use_features(self, peer: Peer, features: int) -> None:
        """Use what the peer's Hello and ours have in common."""
        peer.features = features & self._features
        self._tell_features(peer)

    def _tell_features(self, peer: Peer) -> None:
        self._engine.set_features(
            peer.number,
            trains=bool(peer.features & frames.FEATURE_TRAINS),
            udp_trains=bool(peer.features & frames.FEATURE_UDP_TRAINS),
            aes=bool(peer.features & frames.FEATURE_AES),
            blocks=bool(peer.features & frames.FEATURE_BLOCKS),
        )

    def send_frame(self, peer: Peer, frame: frames.Frame) -> None:
        self._engine.send(peer.number, frames.encode(frame))

    def answer_frame(self, peer: Peer, frame: frames.Frame) -> None:
        """Send ``frame`` by the path that the peer's newest one came by."""
        if peer.heard_at is None or peer.heard_at == peer.endpoint:
            self.send_frame(peer, frame)
        else:
            self.send_frame_to(peer, peer.heard_at, frame)

    def send_frame_to(self, peer: Peer, endpoint: Endpoint, frame: frames.Frame) -> None:
        """Send ``frame`` to ``endpoint``, wherever everything else goes."""
        self._engine.send_to(peer.number, endpoint, frames.encode(frame))

    def send_probe(self, peer: Peer, plaintext: bytes) -> None:
        """Send a frame as long as it is, unfragmented or not at all."""
        self._engine.send_probe(peer.number, plaintext)

    def set_mtu(self, peer: Peer, mtu: int | None) -> None:
        """Hold packets to what the peer's path takes; None: nothing is known of it."""
        peer.mtu = mtu
        unknown = RELAYED_MTU if peer.relayed else DEFAULT_MTU
        self._engine.set_path_mtu(peer.number, unknown if mtu is None else mtu)

    def last_handshake(self, peer: Peer) -> float | None:
        """Monotonic seconds of the last completed handshake, None before the first."""
        return self._device.peer(peer.tunnel_key).last_handshake

    def greatest_timestamp(self, peer: Peer) -> bytes | None:
        return self._device.peer(peer.tunnel_key).greatest_timestamp

    def datagram_received(self, data: bytes, source: Endpoint) -> None:
        """A handshake datagram (types 1-3) from the port."""
        self._device.handle_datagram(data, source, time.monotonic(), time.time())
        self._flush()

    def engine_event(self, event: engine_events.Event) -> None:
        """What the engine reports. Unknown peers are those removed while the event was on its way."""
        if isinstance(event, engine_events.DropCounts):
            self._drops.merge(event.counts)
            return
        if isinstance(event, engine_events.WhoHolds):
            self._listener.address_wanted(event.destination)
            return
        peer = self._table.by_number(event.peer)
        if peer is None:
            return
        core = self._device.peer(peer.tunnel_key)
        now = time.monotonic()
        match event:
            case engine_events.Activity():
                self._moved(peer, event, now)
            case engine_events.KeypairConfirmed():
                core.keypair_confirmed(event.local_index)
                self._listener.session_up(peer)
            case engine_events.NeedHandshake():
                core.needs_handshake(now, time.time())
                self._listener.packets_wait(peer)
            case engine_events.EndpointRoamed():
                peer.endpoint = event.endpoint
                core.set_endpoint(event.endpoint)
                self._listener.endpoint_moved(peer)
            case engine_events.HeardElsewhere():
                self._listener.heard_elsewhere(peer, event.endpoint)
            case engine_events.ProbeRefused():
                self._listener.probe_refused(peer, event.size)
            case engine_events.ControlFrame():
                peer.heard_at = self.way_heard(peer, event.source)
                self._frame_received(peer, event.plaintext)
            case _:
                assert_never(event)
        self._flush()

    def _moved(self, peer: Peer, event: engine_events.Activity, now: float) -> None:
        core = self._device.peer(peer.tunnel_key)
        peer.rx_bytes, peer.tx_bytes = event.rx_bytes, event.tx_bytes
        _note_heard(peer, event, now)
        for happened, occasion in (
            (event.received, core.data_received),
            (event.keepalive_received, core.keepalive_received),
            (event.sent, core.data_sent),
            (event.keepalive_sent, core.keepalive_sent),
        ):
            if happened:
                occasion(now)
        self._listener.packets_moved(peer)

    def use_engine(self, engine: EngineProcess) -> None:
        """A new engine, in place of one that died with all keys: tell it the peers, make sessions anew."""
        self._engine = engine
        if self._asked:
            engine.resolve(self._asked)
        if self._own_relay_ids:
            engine.set_own_relay_ids(self._own_relay_ids)
        for via, (endpoint, carrier, through) in self._vias.items():
            engine.set_via(via, endpoint, carrier, through)
        if self._forwarded:
            engine.forward(self._forwarded)
        for peer in self._table.all():
            engine.set_peer(peer.number, peer.allowed_ips, None)
            if peer.relay_ids:
                engine.set_relay_ids(peer.number, peer.relay_ids)
            if peer.endpoint is not None:
                engine.set_endpoint(peer.number, peer.endpoint)
            self._tell_features(peer)
            self.set_mtu(peer, peer.mtu)
            if peer.endpoint is not None:
                self.initiate(peer)

    def close(self) -> None:
        for handle in (self._timer, self._arming):
            if handle is not None:
                handle.cancel()

    def _frame_received(self, peer: Peer, plaintext: bytes) -> None:
        if plaintext[0] & 0xF0 == HANDSHAKE_MARK:
            self._listener.relayed_handshake(peer, plaintext)
            return
        try:
            frame = frames.decode(plaintext)
        except DecodeError as error:
            self._drops.count("frame", error.reason)
            return
        self._listener.frame_received(peer, frame)

    def _flush(self) -> None:
        """Carry out what the core has to say: the engine has the keys before the answer leaves that lets the
        peer use them. The next timeout is looked for once for all that comes together: that takes a look at
        every peer."""
        for event in self._device.events():
            self._core_event(event)
        for data, endpoint in self._device.datagrams_to_send():
            self._send(data, endpoint)
        if self._arming is None:
            self._arming = asyncio.get_running_loop().call_soon(self._arm)

    def _arm(self) -> None:
        """Sleep until the core's next timeout."""
        self._arming = None
        if self._timer is not None:
            self._timer.cancel()
        timeout = self._device.next_timeout()
        if timeout is not None:
            delay = max(0.0, timeout - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._handle_timeout)

    def _handle_timeout(self) -> None:
        self._device.handle_timeout(time.monotonic(), time.time())
        self._flush()

    def _core_event(self, event: wg.Event) -> None:
        if isinstance(event, wg.UnknownPeer):
            self._listener.stranger_knocked()
            return
        peer = self._table.by_tunnel_key(event.public_key)
        if peer is None:
            return
        match event:
            case wg.KeypairReady():
                self._settle_endpoint(peer)  # first: packets that wait leave with the keys
                self._engine.install_keypair(peer.number, event.keypair)
                if event.keypair.initiator:
                    self._listener.session_up(peer)
            case wg.SendKeepalive():
                self._engine.send(peer.number, b"")
            case wg.KeypairsErased():
                self._engine.erase_keypairs(peer.number)
            case wg.EndpointLearned():
                self._endpoint_learned(peer, event.endpoint)
            case wg.HandshakeFailed():
                log.info("peer %s: no answer to our handshakes", peer.id)
            case _:
                assert_never(event)

    def _settle_endpoint(self, peer: Peer) -> None:
        """What comes from where a knock went first is no news to the core: aim a session that has come about
        there now. Without that its first frames, the Hello among them, would go nowhere."""
        endpoint = self._device.peer(peer.tunnel_key).endpoint
        if endpoint is not None and endpoint != peer.endpoint:
            self._endpoint_learned(peer, endpoint)

    def _endpoint_learned(self, peer: Peer, endpoint: Endpoint) -> None:
        """The peer has sent a handshake message from ``endpoint``, and was answered there. A path in use is
        not left for a relay because of that: a message by the relay may just be the slower copy."""
        connected = peer.state is PeerState.CONNECTED
        if connected and peer.endpoint is not None and is_relayed(endpoint):
            self._device.peer(peer.tunnel_key).set_endpoint(peer.endpoint)
            self._listener.heard_elsewhere(peer, endpoint)
            return
        peer.endpoint = endpoint
        self._steer(peer, endpoint)
        self._listener.endpoint_moved(peer)


def _note_heard(peer: Peer, event: engine_events.Activity, now: float) -> None:
    """What comes by another path says nothing about the one in use."""
    heard = event.rx_bytes - event.strayed_bytes
    if heard != peer.heard_bytes:
        peer.last_heard = now
    peer.heard_bytes = heard
