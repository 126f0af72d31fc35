"""The roster against a model that remembers everything it was ever offered."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dhtvpn.records.envelope import MAX_LIFETIME_S, OpenedRecord
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.roster import Change, Roster

NAMES = ("a", "b")


class RosterMachine(RuleBasedStateMachine):
    """Honest storing nodes, hostile order: any record may arrive again at any time until it expires."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()
        self.now = 1_738_800_000
        self.highest: dict[bytes, tuple[int, int]] = {}
        """By node key: the highest sequence number taken, and when."""

    @rule(
        node=st.integers(0, 3),
        sequence=st.integers(0, 20),
        lifetime=st.integers(-10, MAX_LIFETIME_S),
        name=st.sampled_from(NAMES),
        leaving=st.booleans(),
    )
    def offer(self, node: int, sequence: int, lifetime: int, name: str, leaving: bool) -> None:
        record = EndpointRecord(bytes([node]) * 32, name, bytes(16), (), 0, 0, 0, leaving)
        before = self.roster.get(record.node_key)
        change = self.roster.offer(OpenedRecord(record, sequence, self.now + lifetime), self.now)
        after = self.roster.get(record.node_key)
        highest, heard = self.highest.get(record.node_key, (-1, 0))
        if lifetime <= 0 or (sequence < highest and self.now < heard + MAX_LIFETIME_S):
            assert change is Change.STALE
        if change is Change.STALE:
            assert after == before
            taken = lifetime > 0 and leaving and before is None and sequence >= highest
        else:
            assert (before is None) == (change is Change.NEW)
            assert (after is None) == leaving
            assert (change is Change.UNCHANGED) == (before is not None and before.record == record)
            taken = True
        if taken or (after is not None and after.sequence > highest):
            self.highest[record.node_key] = (sequence, self.now)

    @rule(seconds=st.integers(1, MAX_LIFETIME_S))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        present = {best.record.node_key: best for best in self.roster.as_list()}
        gone = self.roster.expire(self.now)
        assert gone == sorted(key for key, best in present.items() if best.expires <= self.now)

    @invariant()
    def members_are_alive_and_present(self) -> None:
        members = self.roster.as_list()
        assert all(best.expires > self.now and not best.record.leaving for best in members)
        assert len(members) == len(self.roster)


TestRoster = RosterMachine.TestCase
