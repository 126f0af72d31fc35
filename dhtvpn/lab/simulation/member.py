"""A member as far as discovery goes: directory, announcer, finder and comparison of clocks, all of them real.

Tunnels are left out: their keepalives are not discovery, and would keep the NAT's mapping open.
"""

import asyncio
import random
from functools import lru_cache

from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.lab.simulation import clock
from dhtvpn.lab.simulation.nodes import Node
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.clock import ClockComparison
from dhtvpn.node.finder import Finder
from dhtvpn.records.envelope import OpenedRecord
from dhtvpn.records.record import Candidate, CandidateKind, EndpointRecord
from dhtvpn.records.roster import Roster
from dhtvpn.records.topic import Topic


@lru_cache(maxsize=8192)
def _topic(secret: bytes, epoch: int) -> Topic:
    return Topic.derive(secret, epoch)


class Member:
    """One member of the network with this ``secret``. Made, then :meth:`join`, then :meth:`close`."""

    def __init__(self, node: Node, secret: bytes, rng: random.Random) -> None:
        self.node = node
        self.identity = Identity.from_seed(rng.randbytes(32))
        self.roster = Roster()
        self.began_to_publish = 0.0
        self.found_at: dict[bytes, float] = {}
        """Node key to the time of its first record here, in seconds of the loop's clock."""
        self._loop = asyncio.get_running_loop()
        self._nonce = rng.randbytes(16)
        self._tasks: list[asyncio.Task[None]] = []
        directory = node.directory
        self._announcer = Announcer(
            directory=directory,
            identity=self.identity,
            topic_at=lambda epoch: _topic(secret, epoch),
            record=self._record,
            random_bytes=rng.randbytes,
            published=lambda _: None,
            unix_time=clock.unix_time,
        )
        self._finder = Finder(
            directory=directory,
            topic_at=lambda epoch: _topic(secret, epoch),
            roster=self.roster,
            own_node_key=self.identity.node_key,
            member_found=self._found,
            member_expired=lambda _: None,
            drops=node.drops,
            own_record_seen=self._announcer.seen_own,
            unix_time=clock.unix_time,
        )
        self._comparison = ClockComparison(
            ask=lambda: directory.ask_time(directory.contacts()), say=lambda level, text: None
        )

    async def join(self, remembered: list[Endpoint]) -> None:
        """Start everything that a member runs, with these nodes remembered."""
        await self.node.directory.start(remembered)
        self.began_to_publish = self._loop.time()
        for part in (self._announcer.run(), self._finder.run(), self._comparison.run()):
            self._tasks.append(self._loop.create_task(part))

    async def close(self) -> None:
        """Vanish without a goodbye. Raises what a part of the member has failed with."""
        failed = [task.exception() for task in self._tasks if task.done() and not task.cancelled()]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.node.close()
        for error in failed:
            if error is not None:
                raise error

    def knows(self, other: "Member") -> bool:
        return self.roster.get(other.identity.node_key) is not None

    def _found(self, opened: OpenedRecord) -> None:
        self.found_at.setdefault(opened.record.node_key, self._loop.time())

    def _record(self) -> EndpointRecord:
        candidates = (
            Candidate(Endpoint("192.168.1.23", 4690), CandidateKind.HOST),
            Candidate(self.node.line.endpoint, CandidateKind.REFLEXIVE),
        )
        return EndpointRecord(self.identity.node_key, "member", self._nonce, candidates, 0, 0, 0)
