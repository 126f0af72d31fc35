"""What is done about what tunnels and engine report (``TunnelListener``, ``EngineListener``)."""

import time
from typing import Final

from dhtvpn.dataplane import messages as engine_events
from dhtvpn.dataplane.process import EngineProcess
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Occasion, Peer, PeerState
from dhtvpn.node.background import Background
from dhtvpn.node.members import Member
from dhtvpn.node.parts import Parts
from dhtvpn.node.path_events import PathEvents
from dhtvpn.node.path_facts import Why

STRANGER_PAUSE_S: Final = 5.0
"""A handshake from an unknown key may be a member whose record is on its way: look at most this often."""


class TunnelEvents:
    """The listener of one node."""

    def __init__(self, parts: Parts, path_events: PathEvents, background: Background) -> None:
        self._parts, self._path_events, self._background = parts, path_events, background
        self._last_stranger = -STRANGER_PAUSE_S

    def session_up(self, peer: Peer) -> None:
        """A handshake is complete."""
        member = self._parts.members.of(peer)
        if member is None:
            if peer.move(Occasion.SESSION_UP):
                self._path_events.changed(peer)
            return
        self._parts.greetings.session_up(peer)
        self._parts.reporter.led_to(peer, self._found_by(peer, member))
        if not peer.relayed:
            self._parts.prediction.found(peer)
        member.connector.session_up()
        self._parts.reporter.history.look(peer)
        self._parts.liveness.watch(peer)
        self._parts.path_probes.watch(peer)
        self._parts.signals.session_up(peer)
        if not peer.relayed:
            self._parts.relaying.neighbourhood.introduce(peer)

    def relayed_handshake(self, peer: Peer, frame: bytes) -> None:
        """``peer`` has brought a handshake message of somebody else."""
        self._parts.relaying.handshake_from_member(peer, frame)

    def frame_received(self, peer: Peer, frame: frames.Frame) -> None:
        """A control frame of ``peer``."""
        match frame:
            case frames.Hello():
                self._parts.greetings.received(peer, frame)
                if peer.session_nonce not in (None, frame.session_nonce):
                    self._parts.path_probes.peer_restarted(peer)
                    self._parts.signals.forget(peer)
                    self._parts.signals.session_up(peer)
                peer.session_nonce = frame.session_nonce
                self._parts.tunnels.use_features(peer, frame.features)
                peer.relays_for_members = bool(frame.features & frames.FEATURE_RELAY)
                self._parts.relaying.may_carry(peer)
            case frames.Ping() | frames.Pong():
                self._parts.liveness.frame_received(peer, frame)
            case frames.Probe() | frames.ProbeAck():
                self._parts.path_probes.frame_received(peer, frame)
            case frames.Signal():
                self._parts.signals.received(peer, frame, self._parts.members)
            case frames.Neighbours():
                self._parts.relaying.neighbourhood.heard(peer, frame.links)
            case frames.Goodbye():
                member = self._parts.members.of(peer)
                if member is not None:
                    self._parts.greetings.forget(peer)
                    self._parts.liveness.forget(peer)
                    self._parts.path_probes.forget(peer)
                    member.connector.gone()
                    self._path_events.carrier_lost(peer)

    def endpoint_moved(self, peer: Peer) -> None:
        """Packets of ``peer`` come from elsewhere, and ours follow."""
        member = self._parts.members.of(peer)
        if member is not None and peer.state is PeerState.CONNECTED:
            if (why := self._found_by(peer, member)) in (Why.CHECKS, Why.PREDICTION):
                self._parts.reporter.led_to(peer, why)
            member.connector.remember_endpoint()
            self._parts.reporter.history.look(peer)
        self._parts.path_probes.endpoint_moved(peer)

    def _found_by(self, peer: Peer, member: Member) -> Why | None:
        predicted = self._parts.prediction.led_to(peer)
        return Why.PREDICTION if predicted else member.connector.found_by(peer.endpoint)

    def heard_elsewhere(self, peer: Peer, endpoint: Endpoint) -> None:
        """Something authentic came by another path than the one in use."""
        if self._parts.members.of(peer) is not None:
            self._parts.paths.heard_elsewhere(peer, endpoint)

    def packets_moved(self, peer: Peer) -> None:
        """The byte counters of ``peer`` have changed."""
        self._parts.liveness.packets_moved(peer)
        self._parts.path_probes.packets_moved(peer)
        if self._parts.members.of(peer) is not None:
            self._parts.direct_probes.packets_moved(peer)

    def probe_refused(self, peer: Peer, size: int) -> None:
        """Our own link does not take a probe of so many bytes."""
        self._parts.path_probes.refused(peer, size)

    def stranger_knocked(self) -> None:
        """A handshake came from a key that we do not know."""
        now = time.monotonic()
        if now - self._last_stranger >= STRANGER_PAUSE_S:
            self._last_stranger = now
            self._background.start(self._parts.finder.look_up())

    def packets_wait(self, peer: Peer) -> None:
        """Packets for ``peer`` wait for a session."""
        if (member := self._parts.members.of(peer)) is not None:
            member.connector.wanted()

    def address_wanted(self, address: engine_events.Address) -> None:
        """A packet goes to an address that no peer has."""
        self._parts.on_demand.wanted(address)

    def engine_event(self, event: engine_events.Event) -> None:
        """Whatever the engine reports."""
        self._parts.tunnels.engine_event(event)

    def engine_ended(self, code: int, pause_s: float) -> None:
        """The engine died: no packet passes until there is another."""
        self._parts.reporter.engine_ended(code, pause_s)

    def engine_replaced(self, engine: EngineProcess) -> None:
        """``engine`` is the new one: sessions come back by new handshakes."""
        self._parts.engine_restarts += 1
        self._parts.tunnels.use_engine(engine)
        self._parts.reporter.engine_restarted(self._parts.engine_restarts)

    def engine_lost(self, error: SystemRefusedError) -> None:
        """There will be no other engine: the node ends."""
        self._parts.failure = SystemRefusedError(f"{error}, and no other can be started: join again")
        self._parts.stop_requested.set()
