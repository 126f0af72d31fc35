"""While packets go through a relay: does a direct path work by now?

Attempts at one (node/connector.py) have pauses that grow, for nobody may need it. While there are
packets of the user's to carry, the best few places of the peer get a ping each every PROBE_S instead, through
the session that there is: the ping opens our NAT or firewall, the peer's opens its own, and the first that is
answered moves the packets. At rest nothing is sent here.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.peers import Peer
from dhtvpn.nat.probe_allowance import ProbeAllowance
from dhtvpn.node.path_changes import PathChanges

PROBE_S: Final = 1.25
"""A path that comes up is found within this and a round trip; three seconds are promised."""
PLACES: Final = 3
"""Of a peer's candidates, probed each time."""
PROBE_OCTETS: Final = 64
"""What one probe adds to the peer's counters at most: it is no packet of the user's."""
REST_OCTETS_PER_S: Final = 100.0
"""Both ways together, what a relayed pair without traffic may make: pings, keepalives, signals."""
TRAFFIC_OCTETS: Final = 300.0
"""More than this beyond what is made at rest: the user's. A ping each second is, within two or three."""
LASTING_S: Final = 6.0
"""Traffic counts for so long after its last packet."""
MOST_OCTETS: Final = TRAFFIC_OCTETS + LASTING_S * REST_OCTETS_PER_S


class _Account:
    """A bucket that traffic fills, and that leaks what is made at rest. Times in monotonic seconds."""

    def __init__(self, now: float, octets: int) -> None:
        self._level, self._at, self._octets = 0.0, now, octets

    def traffic(self, now: float, octets: int) -> None:
        """The peer's counters stand at ``octets`` together."""
        self._leak(now)
        self._level = min(MOST_OCTETS, self._level + max(0, octets - self._octets))
        self._octets = octets

    def probed(self) -> None:
        """What comes to the counters next is ours."""
        self._octets += PROBE_OCTETS

    def fill(self, now: float) -> None:
        self._leak(now)
        self._level = MOST_OCTETS

    def busy(self, now: float) -> bool:
        self._leak(now)
        return self._level >= TRAFFIC_OCTETS

    def _leak(self, now: float) -> None:
        self._level = max(0.0, self._level - max(0.0, now - self._at) * REST_OCTETS_PER_S)
        self._at = now


class DirectProbes:
    """``places`` gives where a peer may be reached directly, the best first; ``allowance`` is for all peers
    together."""

    def __init__(
        self,
        *,
        places: Callable[[Peer], Sequence[Endpoint]],
        paths: PathChanges,
        allowance: ProbeAllowance,
    ) -> None:
        self._places, self._paths, self._allowance = places, paths, allowance
        self._accounts: dict[int, _Account] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def packets_moved(self, peer: Peer) -> None:
        """The peer's byte counters have changed."""
        octets = peer.heard_bytes + peer.tx_bytes
        if not peer.relayed:
            self._accounts.pop(peer.number, None)
            return
        account = self._accounts.get(peer.number)
        if account is None:
            self._accounts[peer.number] = _Account(_now(), octets)
            return
        account.traffic(_now(), octets)
        self._follow(peer, account)

    def wanted(self, peer: Peer) -> None:
        """Somebody waits for a direct path to ``peer``, or there may be one now: as if there were traffic."""
        if peer.relayed:
            octets = peer.heard_bytes + peer.tx_bytes
            account = self._accounts.setdefault(peer.number, _Account(_now(), octets))
            account.fill(_now())
            self._follow(peer, account)

    def forget(self, peer: Peer) -> None:
        """``peer`` is gone."""
        self._accounts.pop(peer.number, None)
        task = self._tasks.pop(peer.number, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """End every round of probes."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, peer: Peer, account: _Account) -> None:
        if peer.number not in self._tasks and account.busy(_now()):
            task = asyncio.create_task(self._probe(peer), name=f"probe {peer.id}")
            self._tasks[peer.number] = task
            task.add_done_callback(lambda done: self._ended(peer.number, done))

    def _ended(self, number: int, task: "asyncio.Task[None]") -> None:
        if self._tasks.get(number) is task:
            del self._tasks[number]

    async def _probe(self, peer: Peer) -> None:
        """As long as the peer is relayed and there is traffic."""
        while peer.relayed and (account := self._accounts.get(peer.number)) is not None:
            began = _now()
            if not account.busy(began):
                return
            allowed = [place for place in self._places(peer)[:PLACES] if self._allowance.take(place, began)]
            for _ in allowed:
                account.probed()
            if allowed and await self._paths.try_directly(peer, allowed, PROBE_S):
                return
            await asyncio.sleep(max(0.0, began + PROBE_S - _now()))


def _now() -> float:
    return asyncio.get_running_loop().time()
