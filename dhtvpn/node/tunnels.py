"""The tunnels of one node: handshakes are made here, data messages are sealed and opened in the engine.

What arrives of handshake datagrams goes into the WireGuard core; what the core wants sent goes to the
port; the keypairs that it makes go to the engine. The engine tells what happened to the data
(sent, received, confirmed, no key), and those occasions drive the core's timers.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

from dhtvpn.dataplane import messages as engine_events
from dhtvpn.dataplane.process import EngineProcess
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.mesh import frames
from dhtvpn.mesh.path_mtu import DEFAULT_MTU
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.wireguard import events as wg
from dhtvpn.wireguard.device import Device

log = logging.getLogger(__name__)


class TunnelListener(Protocol):
    """Who is told what happens to the tunnels."""

    def session_up(self, peer: Peer) -> None: ...

    def frame_received(self, peer: Peer, frame: frames.Frame) -> None: ...

    def endpoint_moved(self, peer: Peer) -> None: ...

    def packets_moved(self, peer: Peer) -> None: ...

    def probe_refused(self, peer: Peer, size: int) -> None: ...

    def stranger_knocked(self) -> None: ...

    def address_wanted(self, address: engine_events.Address) -> None: ...


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
    ) -> None:
        self._device = device
        self._engine = engine
        self._table = table
        self._send = send
        self._drops = drops
        self._listener = listener
        self._features = features
        self._timer: asyncio.TimerHandle | None = None
        self._asked: tuple[engine_events.Network, ...] = ()

    def add(self, peer: Peer, preshared_key: bytes, timestamp: bytes | None) -> None:
        """Let ``peer`` make sessions. ``timestamp`` is the greatest TAI64N stamp seen of it before."""
        core = self._device.add_peer(peer.tunnel_key, preshared_key, None)
        if timestamp is not None:
            core.greatest_timestamp = timestamp
        self._engine.set_peer(peer.number, peer.allowed_ips, peer.endpoint)
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
        self._engine.set_endpoint(peer.number, endpoint)

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
        self._flush()

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

    def send_probe(self, peer: Peer, plaintext: bytes) -> None:
        """Send a frame as long as it is, unfragmented or not at all."""
        self._engine.send_probe(peer.number, plaintext)

    def set_mtu(self, peer: Peer, mtu: int | None) -> None:
        """Hold packets to what the peer's path takes; None: nothing is known of it."""
        peer.mtu = mtu
        self._engine.set_path_mtu(peer.number, DEFAULT_MTU if mtu is None else mtu)

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
                peer.rx_bytes, peer.tx_bytes = event.rx_bytes, event.tx_bytes
                for happened, occasion in (
                    (event.received, core.data_received),
                    (event.keepalive_received, core.keepalive_received),
                    (event.sent, core.data_sent),
                    (event.keepalive_sent, core.keepalive_sent),
                ):
                    if happened:
                        occasion(now)
                self._listener.packets_moved(peer)
            case engine_events.KeypairConfirmed():
                core.keypair_confirmed(event.local_index)
                self._listener.session_up(peer)
            case engine_events.NeedHandshake():
                core.needs_handshake(now, time.time())
            case engine_events.EndpointRoamed():
                peer.endpoint = event.endpoint
                core.set_endpoint(event.endpoint)
                self._listener.endpoint_moved(peer)
            case engine_events.ProbeRefused():
                self._listener.probe_refused(peer, event.size)
            case engine_events.ControlFrame():
                self._frame_received(peer, event.plaintext)
            case _:
                assert_never(event)
        self._flush()

    def use_engine(self, engine: EngineProcess) -> None:
        """A new engine, in place of one that died with all keys: tell it the peers, make sessions anew."""
        self._engine = engine
        if self._asked:
            engine.resolve(self._asked)
        for peer in self._table.all():
            engine.set_peer(peer.number, peer.allowed_ips, peer.endpoint)
            self._tell_features(peer)
            self.set_mtu(peer, peer.mtu)
            if peer.endpoint is not None:
                self.initiate(peer)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _frame_received(self, peer: Peer, plaintext: bytes) -> None:
        try:
            frame = frames.decode(plaintext)
        except DecodeError as error:
            self._drops.count("frame", error.reason)
            return
        self._listener.frame_received(peer, frame)

    def _flush(self) -> None:
        """Carry out what the core has to say, then sleep until its next timeout. The engine has the keys
        before the answer leaves that lets the peer use them."""
        for event in self._device.events():
            self._core_event(event)
        for data, endpoint in self._device.datagrams_to_send():
            self._send(data, endpoint)
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
                self._engine.install_keypair(peer.number, event.keypair)
                if event.keypair.initiator:
                    self._listener.session_up(peer)
            case wg.SendKeepalive():
                self._engine.send(peer.number, b"")
            case wg.KeypairsErased():
                self._engine.erase_keypairs(peer.number)
            case wg.EndpointLearned():
                peer.endpoint = event.endpoint
                self._engine.set_endpoint(peer.number, event.endpoint)
                self._listener.endpoint_moved(peer)
            case wg.HandshakeFailed():
                log.info("peer %s: no answer to our handshakes", peer.id)
            case _:
                assert_never(event)
