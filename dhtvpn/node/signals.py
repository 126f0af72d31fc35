"""Signals: tells a relayed peer where this node may be reached, so that both try at once."""

from collections.abc import Callable, Sequence

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.node.members import Members
from dhtvpn.node.path_changes import PathChanges
from dhtvpn.records.record import MAX_CANDIDATES, Candidate, CandidateKind

_KINDS = {kind.value: kind for kind in CandidateKind}


class Signals:
    """``candidates`` gives ours, ``homes`` the volunteers that we are at home with; ``predicted`` where a
    peer may see us, as far as that is foreseen."""

    def __init__(
        self,
        *,
        session_nonce: bytes,
        table: PeerTable,
        send_frame: Callable[[Peer, frames.Frame], None],
        candidates: Callable[[], Sequence[Candidate]],
        homes: Callable[[], Sequence[Endpoint]],
        paths: PathChanges,
        predicted: Callable[[Peer], Sequence[Candidate]],
    ) -> None:
        self._nonce, self._table, self._send_frame = session_nonce, table, send_frame
        self._candidates, self._homes, self._paths = candidates, homes, paths
        self._predicted = predicted
        self._told: dict[int, Endpoint] = {}
        """By which way each relayed peer was told when its session came up."""

    def session_up(self, peer: Peer) -> None:
        """A handshake is complete. A relayed peer is told once by each way: keys are renewed every two
        minutes, and a signal makes it try for a direct path."""
        if not peer.relayed or peer.endpoint is None:
            self.forget(peer)
        elif self._told.get(peer.number) != peer.endpoint:
            known = {other.number for other in self._table.all()}
            self._told = {number: way for number, way in self._told.items() if number in known}
            self._told[peer.number] = peer.endpoint
            self.send(peer)

    def forget(self, peer: Peer) -> None:
        """The path is another one, or lost: the next session tells again."""
        self._told.pop(peer.number, None)

    def send(self, peer: Peer) -> None:
        """Tell a relayed peer where we can be reached, and that we try now."""
        candidates = (*self._predicted(peer), *self._candidates())[: frames.MAX_CANDIDATES]
        told = tuple((candidate.kind.value, candidate.endpoint) for candidate in candidates)
        self._send_frame(peer, frames.Signal(self._nonce, told))

    def send_to_relayed(self) -> None:
        """Our candidates have changed."""
        for peer in self._table.connected():
            if peer.relayed and peer.node_key is not None:
                self.send(peer)

    def received(self, peer: Peer, signal: frames.Signal, members: Members) -> None:
        """``peer`` has told us. Kinds that are not known here are left out."""
        if peer.heard_at is not None:
            self._paths.told_by_relay(peer, peer.heard_at)
        known = [Candidate(endpoint, _KINDS[kind]) for kind, endpoint in signal.candidates if kind in _KINDS]
        members.signalled(peer, signal.session_nonce, known)

    def published(self) -> tuple[Candidate, ...]:
        """What our record holds: our candidates, and where we are at home."""
        relays = [Candidate(endpoint, CandidateKind.RELAY) for endpoint in self._homes()]
        return (*self._candidates()[: MAX_CANDIDATES - len(relays)], *relays)
