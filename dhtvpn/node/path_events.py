"""What is done when a path to a peer comes up, moves, fails or is lost."""

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Peer, PeerState
from dhtvpn.node.background import Background
from dhtvpn.node.members import Member
from dhtvpn.node.parts import Parts
from dhtvpn.node.path_facts import Why


class PathEvents:
    """Called by whoever notices: liveness, relaying, the changes of paths, the tunnels."""

    def __init__(self, parts: Parts, background: Background) -> None:
        self._parts, self._background = parts, background

    def member(self, peer: Peer) -> Member | None:
        """What is known of ``peer``; None for a stock one."""
        return self._parts.members.of(peer)

    def network(self) -> int:
        """Another number in each network that this machine has been in."""
        return self._parts.recovery.changes

    def signal(self, peer: Peer) -> None:
        """There is news for a relayed peer of where it may reach us."""
        self._parts.signals.send(peer)

    def changed(self, peer: Peer) -> None:
        """The state of ``peer`` is another one."""
        self._parts.reporter.history.look(peer)
        if peer.state is PeerState.CONNECTED:
            self._parts.saving.soon()
        elif peer.state is PeerState.UNREACHABLE and self._parts.on_demand.crowded():
            self._background.start(self._forget(peer))

    def became_crowded(self) -> None:
        """There are more members than connect to each other at once: whoever is wanted is looked up."""
        for member in self._parts.members.all():
            self._background.start(self._forget(member.peer))

    async def _forget(self, peer: Peer) -> None:
        if peer.state is not PeerState.CONNECTED and peer.node_key is not None:
            self._parts.greetings.forget(peer)
            self._parts.liveness.forget(peer)
            self._parts.paths.forget(peer)
            self._parts.direct_probes.forget(peer)
            self._parts.prediction.forget(peer)
            self._parts.path_probes.forget(peer)
            await self._parts.members.forget(peer.node_key)

    def relay_failed(self, peer: Peer) -> None:
        """The relay on the way to ``peer`` does not know it, or is gone."""
        self._parts.reporter.history.because(peer, Why.RELAY_GONE)
        self._failed(peer)

    def network_lost(self, peer: Peer) -> None:
        """We have no address any more from which the path to ``peer`` could be used."""
        self._parts.reporter.history.because(peer, Why.NETWORK_CHANGED)
        self._failed(peer)

    def _failed(self, peer: Peer) -> None:
        """Nothing comes of ``peer`` any more: its relay says so, or the network has changed."""
        self._parts.greetings.forget(peer)
        self._parts.liveness.forget(peer)
        self.lost(peer)

    def moved(self, peer: Peer) -> None:
        """The peer's packets take another path, which works."""
        member = self._parts.members.of(peer)
        if member is None:
            return
        self._parts.path_probes.watch(peer)
        if peer.relayed:
            self.carrier_lost(peer)
            member.connector.fell_back()
            self._parts.signals.send(peer)
        else:
            member.connector.session_up()
            if self._parts.prediction.led_to(peer):
                self._parts.reporter.led_to(peer, Why.PREDICTION)
            self._parts.prediction.found(peer)
            self._parts.relaying.neighbourhood.introduce(peer)
            self.changed(peer)

    def peer_left(self, peer: Peer, way: Endpoint) -> None:
        """``peer`` has left the relayed path ``way`` for another one."""
        self._parts.relay_watch.peer_left(peer, way)

    def carrier_lost(self, peer: Peer) -> None:
        """``peer`` is not reached directly any more: it carries nothing for us."""
        self._parts.relaying.neighbourhood.gone(peer)
        self._parts.relaying.carrier_lost(peer)

    def lost(self, peer: Peer) -> None:
        """The path in use does not work: take another way, or connect anew."""
        member = self._parts.members.of(peer)
        if member is not None and self._parts.paths.fall_back(peer):
            return
        self._parts.path_probes.forget(peer)
        self._parts.signals.forget(peer)
        self._parts.recovery.path_lost()
        if member is not None:
            self.carrier_lost(peer)
            member.connector.path_lost()
            if self._parts.on_demand.full():
                self._parts.on_demand.wanted(
                    peer.ipv6, fresh=True
                )  # it may be elsewhere now, and we are not told

    def direct_places(self, peer: Peer) -> list[Endpoint]:
        """Where a relayed peer may be reached directly: where it was before, then what it says itself."""
        member = self._parts.members.of(peer)
        if member is None:
            return []
        told = [candidate.endpoint for candidate in member.connector.candidates]
        places = dict.fromkeys([*member.connector.known_endpoints, *told])
        families = self._parts.port.families
        return [place for place in places if (6 if place.is_ipv6 else 4) in families]

    def attempt_failed(self, peer: Peer, number: int) -> None:
        """So many attempts in a row have found no direct path."""
        self._parts.prediction.attempt_failed(peer)
        self._parts.reporter.attempt_failed(peer, number)

    def way_beside(self, peer: Peer) -> Endpoint | None:
        """A way through a relay to a peer that packets do not take now."""
        return next((way for way in self._parts.relaying.ways_now(peer) if way != peer.endpoint), None)

    def mtu_found(self, peer: Peer, mtu: int | None) -> None:
        """The path takes packets of ``mtu`` bytes; None: that is not known."""
        self._parts.tunnels.set_mtu(peer, mtu)
        self._parts.mtu_routes.refresh()

    def try_for_direct(self, peer: Peer) -> None:
        """Somebody waits for a direct path: both sides try now."""
        member = self._parts.members.of(peer)
        if member is not None and peer.path != "direct":
            if peer.relayed:
                self._parts.signals.send(peer)
                self._parts.direct_probes.wanted(peer)
            member.connector.hurry()
