"""When a relayed peer is told where this node may be reached."""

from types import SimpleNamespace

from peers_in_table import add_peer

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh import frames
from dhtvpn.mesh.peers import Peer, PeerTable
from dhtvpn.mesh.relayed import relayed
from dhtvpn.node.signals import Signals
from dhtvpn.records.record import Candidate, CandidateKind

HERE, THERE = Endpoint("198.18.1.1", 1), Endpoint("198.18.2.2", 2)
ONE_WAY, ANOTHER = relayed(1, 9), relayed(2, 9)


class Bench:
    """A peer, and what it is told."""

    def __init__(self) -> None:
        table = PeerTable()
        peer = add_peer(table, 9)
        self.peer, self.told = peer, list[frames.Frame]()
        self.predicted: tuple[Candidate, ...] = ()
        self.signals = Signals(
            session_nonce=bytes(16),
            table=table,
            send_frame=self._send,
            candidates=lambda: (Candidate(HERE, CandidateKind.HOST),),
            homes=lambda: (),
            paths=SimpleNamespace(),  # type: ignore[arg-type]
            predicted=lambda _: self.predicted,
        )

    def _send(self, peer: Peer, frame: frames.Frame) -> None:
        assert peer is self.peer
        self.told.append(frame)

    def session(self, endpoint: Endpoint) -> int:
        """How many signals a session by ``endpoint`` brings about."""
        before, self.peer.endpoint = len(self.told), endpoint
        self.signals.session_up(self.peer)
        return len(self.told) - before


def test_a_peer_is_told_once_by_each_way_and_not_whenever_keys_are_renewed() -> None:
    bench = Bench()
    assert [bench.session(ONE_WAY) for _ in range(30)] == [1] + 29 * [0]
    assert bench.told == [frames.Signal(bytes(16), ((CandidateKind.HOST.value, HERE),))]
    assert [bench.session(ANOTHER), bench.session(ANOTHER)] == [1, 0]


def test_ports_that_are_foreseen_come_first_and_leave_out_what_does_not_fit() -> None:
    bench = Bench()
    ports = [Endpoint(HERE.host, 30_000 + number) for number in range(frames.MAX_CANDIDATES)]
    for count in (1, len(ports)):
        bench.predicted = tuple(Candidate(port, CandidateKind.PREDICTED) for port in ports[:count])
        bench.signals.send(bench.peer)
        told = bench.told[-1]
        assert isinstance(told, frames.Signal)
        assert frames.decode(frames.encode(told)) == told
        assert [kind for kind, _ in told.candidates] == (count * [5] + [1])[: len(ports)]


def test_it_is_told_again_after_a_direct_path_and_after_a_loss() -> None:
    bench = Bench()
    assert [bench.session(ONE_WAY), bench.session(THERE), bench.session(ONE_WAY)] == [1, 0, 1]
    bench.signals.forget(bench.peer)
    assert bench.session(ONE_WAY) == 1


def test_nothing_is_remembered_of_peers_that_are_gone() -> None:
    bench = Bench()
    bench.session(ONE_WAY)
    bench.signals._table.remove(bench.peer)
    other = add_peer(bench.signals._table, 8, "other")
    gone, bench.peer = bench.peer, other
    bench.session(ANOTHER)
    assert gone.number not in bench.signals._told
