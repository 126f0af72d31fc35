"""Tells what happens in a node as typed events, and remembers what is needed to tell it."""

from collections.abc import Sequence

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Peer
from dhtvpn.nat.port import UdpPort
from dhtvpn.node.drop_reports import DropReports
from dhtvpn.node.events import Events
from dhtvpn.node.happenings import EngineEnded, EngineRestarted, MappingLost, PeerFound, Retry
from dhtvpn.node.path_facts import KnowsRelays, Why
from dhtvpn.node.path_history import PathHistory


class Reporter:
    """``history`` is told of changes of paths; everything else has a method here."""

    def __init__(self, *, events: Events, relays: KnowsRelays, port: UdpPort, drops: Drops) -> None:
        self._events, self._port, self._drops = events, port, drops
        self._seen_as: tuple[Endpoint, ...] = ()
        self.history = PathHistory(relays=relays, tell=events.tell)

    async def run(self) -> None:
        """Tell of drops, until cancelled."""
        await DropReports(counts=self._counts, tell=self._events.tell).run()

    def found(self, name: str, peer_id: str, source: str) -> None:
        """There is a member that was not known before."""
        self._events.tell(PeerFound(name, peer_id, source))

    def led_to(self, peer: Peer, why: Why | None) -> None:
        """What has led to where ``peer`` is now, if that is known; :meth:`PathHistory.look` comes next."""
        if why is not None and not peer.relayed:
            self.history.because(peer, why)

    def attempt_failed(self, peer: Peer, number: int) -> None:
        """So many attempts in a row have found no (direct) path."""
        if number & (number - 1) == 0:  # the first, second, fourth, eighth...
            self._events.tell(Retry(peer.name, peer.id, number, peer.relayed))

    def seen_from_outside(self, endpoints: Sequence[Endpoint], *, steady: bool) -> None:
        """A survey is over. Public endpoints that are not among ``endpoints`` any more are lost. Ports mean
        nothing where our NAT is not ``steady``: it takes another one for every destination."""
        before, now = self._seen_as, tuple(endpoints)
        self._seen_as = now
        kept = set(now) if steady else {each for each in before if each.host in {new.host for new in now}}
        if gone := [str(each) for each in before if each not in kept]:
            self._events.tell(MappingLost(gone, [str(each) for each in now if each not in before]))

    def engine_ended(self, code: int, pause_s: float) -> None:
        """The engine process is gone."""
        self._events.tell(EngineEnded(code, pause_s))

    def engine_restarted(self, restarts: int) -> None:
        """There is another one."""
        self._events.tell(EngineRestarted(restarts))

    def _counts(self) -> dict[str, int]:
        self._port.count_kernel_drops()
        return self._drops.as_dict()
