"""Brings up a path to each member and brings it up again when it is lost.

An attempt runs two ways at once, and whichever yields a session ends it:

    knock   a handshake initiation to every endpoint that worked before: one round trip when nothing
            has changed, and it needs neither directory nor ICE (docs/adr/0005-knock.md)
    ICE     candidate pairs from both records; credentials are derived from the two static keys and the
            session nonces, so there is no signalling round (docs/adr/0002-derived-ice-credentials.md)

The path belongs to the tunnel once a session is up: it follows authenticated packets from then on. A record
that says that the peer is elsewhere makes us doubt the path, and knock there: our knock also opens our NAT
for what the peer sends from there.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import TimedOutError, UsageError
from dhtvpn.membership.pairwise import PairCredentials
from dhtvpn.mesh.peers import Occasion, Peer
from dhtvpn.nat.checked_pairs import CheckedPair
from dhtvpn.node.path_facts import Why
from dhtvpn.node.patience import happens
from dhtvpn.node.tunnels import Tunnels
from dhtvpn.node.turns import Turns
from dhtvpn.records.record import MAX_CANDIDATES, Candidate, CandidateKind

log = logging.getLogger(__name__)

ICE_DEADLINE_S = 10.0
"""One ICE attempt. Checks that work need under a second; the rest allows for the peer's late start."""
LOOK_S, FULL_ATTEMPTS = 3.0, 3
"""One attempt of a peer that is reached through a relay, once so many full ones have failed and there is no
news: half the checks. Those that a full one sends later are for a peer that starts late."""
HANDSHAKE_DEADLINE_S = 2.0
"""From the nominated pair to the session: two round trips on a slow path, and one loss."""
TRIALS_S = (0.5, 0.5, 1.0)
"""After each ping by a path that is to take a relay's place, as long in all as a handshake is given."""
KNOCK_INTERVAL_S = 1.0
KNOCKS = 5
GRACE_S = 0.25
"""A peer that restarted usually knocks before its record arrives: wait this long before ICE."""
UNREACHABLE_AFTER_S = 25.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Between attempts; doubled each time, with jitter, so that nodes do not try in step."""
PERSISTENT_S = 180.0
"""A path that worked is sought without longer pauses for this long: a router takes a minute or two to start
again, and nothing but silence says that it is back."""
KNOCKS_PERSISTENT = 10
"""So that the peer's first packet through is ours, and within a second."""
MEET_S = 1.0
"""A peer that says that it has moved is met elsewhere at most this often."""
MEETING_PLACES = 4
"""New candidates that are knocked at then."""
RELAYED_PAUSE_S = 900.0
"""The longest of a peer that is reached through a relay: it signals when it is somewhere else. An attempt
sends some 3 kB of checks: at 300 s these cost more than all else that keeps the peer within reach."""
LEAST_PAUSE_S = 0.5
"""However often the peer says that it begins an attempt."""
LINGER_S = 3.0
"""An agent answers checks this long after its session: the other side may still be checking."""
KNOWN_ENDPOINTS = 4
NO_RELAY_S = 0.2
"""Until we look again for a relay where there was none."""
RELAY_AFTER_S = 0.3
"""A direct path usually takes less; where it takes longer, packets go through a relay meanwhile."""
RELAY_UNWANTED_S = 3.0
"""The same where no packet waits: a session through a relay, and the move away from it, cost more."""
GREETING_S = 0.5
"""A handshake that has followed the peer's check is given so long before one by a relay voids it."""


async def no_relays(peer: Peer) -> Sequence[Endpoint]:
    """Where no relay is used."""
    return ()


async def nothing_first(peer: Peer) -> None:
    """Where an attempt begins with its own datagrams."""


class Agent(Protocol):
    """What the connector needs of an ICE agent (nat/ice.py)."""

    async def connect(self, deadline_s: float) -> Endpoint: ...

    def pairs(self) -> Sequence[CheckedPair]: ...

    def add_remote(self, endpoint: Endpoint, kind: CandidateKind) -> None: ...

    def proven(self, endpoint: Endpoint) -> None: ...

    async def close(self) -> None: ...


class AgentMaker(Protocol):
    """Makes an agent for one attempt from credentials and both sides' candidates. ``heard`` is told where an
    authentic check of the peer came from."""

    def __call__(
        self,
        credentials: PairCredentials,
        local: Sequence[Candidate],
        remote: Sequence[Candidate],
        heard: Callable[[Endpoint], None],
    ) -> Agent: ...


class Connector:
    """The way to one member: at most one attempt at a time."""

    def __init__(
        self,
        peer: Peer,
        *,
        tunnels: Tunnels,
        make_agent: AgentMaker,
        own_candidates: Callable[[], Sequence[Candidate]],
        changed: Callable[[Peer], None],
        turns: Turns,
        doubt: Callable[[Peer], None] = lambda _: None,
        may_probe: Callable[[Endpoint], bool] = lambda _: True,
        ways_by_relay: Callable[[Peer], Awaitable[Sequence[Endpoint]]] = no_relays,
        attempt_begins: Callable[[Peer], Awaitable[None]] = nothing_first,
        attempt_failed: Callable[[Peer, int], None] = lambda peer, number: None,
        heard_direct: Callable[[Peer, Endpoint], None] = lambda peer, endpoint: None,
    ) -> None:
        """``doubt``: ask a connected peer whether it is still there, and call :meth:`path_lost` if not.
        ``may_probe``: whether an endpoint that a peer has named, and that may be a victim's, gets one more
        datagram. ``ways_by_relay``: ways to a peer through relays, the best first. ``attempt_begins`` is
        awaited before an attempt sends anything, ``attempt_failed`` told how many in a row have failed,
        ``heard_direct`` where a check of a relayed peer came from."""
        self._heard_direct = heard_direct
        self._ways_by_relay = ways_by_relay
        self.peer = peer
        self._tunnels = tunnels
        self._make_agent = make_agent
        self._own_candidates = own_candidates
        self._changed = changed
        self._turns = turns
        self._doubt = doubt
        self._may_probe = may_probe
        self._attempt_begins = attempt_begins
        self._attempt_failed = attempt_failed
        self.attempts = 0
        """Begun since there was a direct path."""
        self._tries = 0
        """Begun since there was news: a hint that the next may find what those before did not."""
        self._pairs: Sequence[CheckedPair] = ()
        self._checked_at = 0.0
        self._hurry = asyncio.Event()
        self._wanted = asyncio.Event()
        """Somebody waits for a path."""
        self._at_once = asyncio.Event()
        """The attempt under way shall not wait for its turn."""
        self._persistent_until = float("-inf")
        self._met_at = float("-inf")
        self._credentials: PairCredentials | None = None
        self._candidates: Sequence[Candidate] = ()
        self._predicted: Sequence[Candidate] = ()
        """Of these, what the next attempt is to check."""
        self.predicted: frozenset[Endpoint] = frozenset()
        """Where the peer has said last that we may see it, because its NAT gives it a port of its own for
        us."""
        self._nonce: bytes | None = None
        self.known_endpoints: list[Endpoint] = []
        """Where the peer answered before, newest first."""
        self._session = asyncio.Event()
        self._attempt: asyncio.Task[None] | None = None
        self._agent: Agent | None = None
        self._greeted: Endpoint | None = None
        """Where our handshake followed the peer's check in the attempt under way, and since when."""
        self._greeted_at = float("-inf")
        self._checking: Agent | None = None
        """The agent of the attempt under way, while it seeks."""
        self._linger: asyncio.Task[None] | None = None

    @property
    def nonce(self) -> bytes | None:
        """The run of the peer that we know of last."""
        return self._nonce

    @property
    def ufrag(self) -> str | None:
        """Our side's username fragment for this peer: a check that names it is from the peer."""
        return self._credentials.own_ufrag if self._credentials else None

    @property
    def candidates(self) -> Sequence[Candidate]:
        """Where the peer says that it may be reached directly."""
        return self._candidates

    @property
    def running(self) -> bool:
        """Whether connectivity checks are under way."""
        return self._checking is not None

    @property
    def pairs(self) -> Sequence[CheckedPair]:
        """The candidate pairs of the attempt under way, or of the last one."""
        return self._pairs if self._checking is None else self._checking.pairs()

    @property
    def checked_s(self) -> float | None:
        """Seconds since the last attempt with candidate pairs was over."""
        return asyncio.get_running_loop().time() - self._checked_at if self._pairs else None

    def found_by(self, endpoint: Endpoint | None) -> Why | None:
        """What has led to ``endpoint`` in the attempt under way."""
        if self.running and any(pair.nominated and pair.remote == endpoint for pair in self.pairs):
            return Why.CHECKS
        if endpoint in self.known_endpoints:
            return Why.KNOCK
        by_checks = self.running and any(pair.remote == endpoint for pair in self.pairs)
        return Why.CHECKS if by_checks else None

    def record_arrived(
        self, nonce: bytes, credentials: PairCredentials, candidates: Sequence[Candidate]
    ) -> None:
        """A verified record of the peer that is newer than those before. Starts an attempt unless the session
        is with this very run; then the path is doubted where the peer has other candidates now."""
        same_run = nonce == self._nonce
        news = not same_run or set(candidates) != set(self._candidates)
        added = [candidate for candidate in candidates if candidate not in self._candidates]
        self._nonce, self._credentials, self._candidates = nonce, credentials, candidates
        if not (self._session.is_set() and self.peer.session_nonce == nonce):
            self.start(restart=news)
            self._hurry.set()
        elif news and same_run:
            self._peer_moved(added)

    def start(self, *, restart: bool = False) -> None:
        """Begin to connect. With ``restart`` a running attempt, made with older facts, is replaced."""
        if self._attempt is not None and not self._attempt.done():
            if not restart:
                return
            self._attempt.cancel()
        if self.peer.move(Occasion.NEWS):
            self._changed(self.peer)
        self._attempt = asyncio.create_task(self._connect(self._attempt), name=f"connect {self.peer.id}")

    def candidates_told(self, candidates: Sequence[Candidate]) -> None:
        """More candidates of the peer, told by another way than its record: a signal through a relay. They
        are checked at once in the attempt that runs, and in those after it until the next record."""
        added = [candidate for candidate in candidates if candidate not in self._candidates]
        self._candidates = (*self._candidates, *added)[-MAX_CANDIDATES:]
        if self._session.is_set():
            self._peer_moved(added)
            return
        if self._checking is not None:
            for candidate in added:
                self._checking.add_remote(candidate.endpoint, candidate.kind)
        self.start()
        self._hurry.set()

    def ports_predicted(self, candidates: Sequence[Candidate]) -> None:
        """Where we may see the peer, in its own words: checked once, in the attempt that runs or in the next
        one."""
        if self._session.is_set():
            return
        self.predicted = frozenset(candidate.endpoint for candidate in candidates)
        if self._checking is None:
            self._predicted = candidates
            self.hurry()
            return
        for candidate in candidates:
            self._checking.add_remote(candidate.endpoint, candidate.kind)

    def wanted(self) -> None:
        """A packet waits for a path: the attempt takes no turns, and a relay soon does for the time being."""
        if not self._session.is_set():
            self._wanted.set()
            self._at_once.set()

    def hurry(self) -> None:
        """Somebody waits for a direct path: a pause between attempts ends."""
        self._at_once.set()
        if self._credentials is not None and not self._session.is_set():
            self.start()
            self._hurry.set()

    def try_now(self) -> None:
        """What kept us from the peer may be gone: a pause ends, or a new attempt takes the place of this."""
        self._persist()
        self.start(restart=True)

    def _peer_moved(self, added: Sequence[Candidate]) -> None:
        """The peer has other candidates than before, ``added`` among them. Where it is gone from the endpoint
        in use, we knock at the new ones: our NAT then lets in what it sends us from there."""
        self._doubt(self.peer)
        now = asyncio.get_running_loop().time()
        still_there = any(candidate.endpoint == self.peer.endpoint for candidate in self._candidates)
        if added and not still_there and now - self._met_at >= MEET_S:
            self._met_at = now
            places = [candidate.endpoint for candidate in added[:MEETING_PLACES]]
            if allowed := [place for place in places if self._may_probe(place)]:
                self._tunnels.knock(self.peer, allowed)

    def _persist(self) -> None:
        self._persistent_until = asyncio.get_running_loop().time() + PERSISTENT_S

    def session_up(self) -> None:
        """A handshake with the peer is complete, whichever way it came. Through a relay it is a beginning:
        the attempt at a direct path goes on."""
        self._wanted.clear()
        if not self.peer.relayed:
            self._session.set()
        if self.peer.move(Occasion.SESSION_UP):
            self._changed(self.peer)
        self.remember_endpoint()
        if self.peer.relayed:
            self.start()

    def fell_back(self) -> None:
        """Packets go through a relay now: try for a direct path, hard where one was lost just now."""
        if self._session.is_set():
            self._persist()
        self._session.clear()
        self._changed(self.peer)
        self.start()

    def remember_endpoint(self) -> None:
        """Put the endpoint in use first among those that worked."""
        endpoint = self.peer.endpoint
        if endpoint is not None and not self.peer.relayed:
            others = [known for known in self.known_endpoints if known != endpoint]
            self.known_endpoints = [endpoint, *others][:KNOWN_ENDPOINTS]

    def path_lost(self) -> None:
        """Nothing comes back any more: connect anew."""
        self._session.clear()
        self._persist()
        if self.peer.move(Occasion.PATH_LOST):
            self._changed(self.peer)
        self.start(restart=True)  # one that began while there was a relay looks for none

    def checked_by_peer(self) -> None:
        """The peer sends connectivity checks while we make none: it has lost the path, or it is its turn."""
        if self._credentials is not None:
            self._at_once.set()
            self.start()

    def gone(self) -> None:
        """The peer left."""
        self._session.clear()
        if self._attempt is not None:
            self._attempt.cancel()
        if self.peer.move(Occasion.GONE):
            self._changed(self.peer)

    async def close(self) -> None:
        """End the attempt and let the agent go."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.gather(self._attempt, return_exceptions=True)
        await self._release_agent()

    async def _connect(self, before: asyncio.Task[None] | None) -> None:
        """Attempt until there is a session; UNREACHABLE is said early, trying goes on.

        ``before`` is the attempt that this one replaces: it must have let go of its agent first.
        """
        session = self._session = asyncio.Event()
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        loop = asyncio.get_running_loop()
        began = loop.time()
        pause = FIRST_PAUSE_S
        self.attempts = self._tries = 0
        while not session.is_set():
            self.attempts += 1
            self._tries += 1
            await self._try_once(session)
            if not session.is_set():
                self._attempt_failed(self.peer, self.attempts)
            late = not session.is_set() and loop.time() - began > UNREACHABLE_AFTER_S
            if late and self.peer.move(Occasion.NO_PATH):
                self._changed(self.peer)
            pause = await self._pause(session, pause)

    async def _pause(self, session: asyncio.Event, pause: float) -> float:
        """Between two attempts, shorter when there is a reason to hurry; returns the next pause."""
        if self._persistent:
            pause = FIRST_PAUSE_S
        await happens(session, LEAST_PAUSE_S)
        hurry = asyncio.create_task(self._hurry.wait())
        up = asyncio.create_task(session.wait())
        try:
            spread = random.uniform(0.5, 1.0)  # noqa: S311 - only spreads load
            done, _ = await asyncio.wait(
                {hurry, up}, timeout=pause * spread - LEAST_PAUSE_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in (hurry, up):
                task.cancel()
        self._hurry.clear()
        if hurry in done:
            self._tries = 0
        longest = RELAYED_PAUSE_S if self.peer.relayed else LONGEST_PAUSE_S
        return FIRST_PAUSE_S if hurry in done else min(2 * pause, longest)

    @property
    def _attempt_s(self) -> float:
        """How long the attempt under way may take."""
        brief = self.peer.relayed and self._tries > FULL_ATTEMPTS and not self._persistent
        return LOOK_S if brief else ICE_DEADLINE_S

    @property
    def _persistent(self) -> bool:
        return asyncio.get_running_loop().time() < self._persistent_until

    async def _try_once(self, session: asyncio.Event) -> None:
        """Both ways at once, until the session is up or both have failed."""
        await self._attempt_begins(self.peer)
        ways = [
            asyncio.create_task(self._knock(session)),
            asyncio.create_task(self._knock_by_relay(session)),
        ]
        if self._credentials is not None:
            ways.append(asyncio.create_task(self._negotiate_in_turn(self._credentials, session)))
        try:
            await asyncio.gather(*ways)
        finally:
            for task in ways:
                task.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _knock(self, session: asyncio.Event) -> None:
        knocks = KNOCKS_PERSISTENT if self._persistent else KNOCKS
        for _ in range(knocks if self.known_endpoints else 0):
            self._tunnels.knock(self.peer, self.known_endpoints)
            if await happens(session, KNOCK_INTERVAL_S):
                return

    async def _knock_by_relay(self, session: asyncio.Event) -> None:
        """A session through a relay, where there is none yet and a direct path takes its time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RELAY_AFTER_S + ICE_DEADLINE_S
        if self._direct_is_likely():
            if await happens(session, RELAY_AFTER_S):
                return
            await self._until_wanted(session)
        if session.is_set():
            return
        while self.peer.path is None and loop.time() < deadline:
            if (greeting_s := self._greeted_at + GREETING_S - loop.time()) > 0:
                if await happens(session, greeting_s):
                    return
                continue
            ways = await self._ways_by_relay(self.peer)
            if ways and self.peer.path is None and loop.time() >= self._greeted_at + GREETING_S:
                self._tunnels.knock(self.peer, ways)
            pause_s = KNOCK_INTERVAL_S if ways else min(NO_RELAY_S, deadline - loop.time())
            if await happens(session, pause_s):
                return

    async def _until_wanted(self, session: asyncio.Event) -> None:
        """Until a packet waits, there is a session, or it has taken RELAY_UNWANTED_S."""
        waiting = [asyncio.create_task(event.wait()) for event in (self._wanted, session)]
        try:
            left_s = RELAY_UNWANTED_S - RELAY_AFTER_S
            await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    def _direct_is_likely(self) -> bool:
        """Not where the peer has no address of a family of ours, nor after a path that was there is lost."""
        if self._persistent:
            return False
        ours = {candidate.endpoint.is_ipv6 for candidate in self._local_candidates()}
        theirs = {candidate.endpoint.is_ipv6 for candidate in self._candidates}
        return not ours or not theirs or bool(ours & theirs)

    def _local_candidates(self) -> list[Candidate]:
        """Ours; link-local ones only towards a neighbour: to others they are no IPv6."""
        neighbour = any(candidate.endpoint.is_link_local for candidate in self._candidates)
        own = self._own_candidates()
        return [each for each in own if neighbour or not each.endpoint.is_link_local]

    async def _negotiate_in_turn(self, credentials: PairCredentials, session: asyncio.Event) -> None:
        if self._persistent or self._wanted.is_set():
            self._at_once.set()
        async with self._turns.turn(self._at_once):
            self._at_once = asyncio.Event()  # of the next attempt
            await self._negotiate(credentials, session)

    async def _negotiate(self, credentials: PairCredentials, session: asyncio.Event) -> None:
        if self.known_endpoints and await happens(session, GRACE_S):
            return
        await self._release_agent()
        remote = (*self._predicted, *self._candidates)
        self._predicted = ()
        try:
            agent = self._make_agent(credentials, self._local_candidates(), remote, self._check_heard)
        except UsageError as error:
            log.warning("peer %s: %s", self.peer.id, error)
            return
        self._agent = self._checking = agent
        self._greeted = None
        finding = asyncio.create_task(agent.connect(self._attempt_s))
        done = asyncio.create_task(session.wait())
        try:
            await asyncio.wait({finding, done}, return_when=asyncio.FIRST_COMPLETED)
            if session.is_set():
                if self.peer.endpoint is not None:
                    agent.proven(self.peer.endpoint)
                return
            endpoint = finding.result()
            log.info("peer %s: path found to %s", self.peer.id, endpoint)
            if self.peer.path == "relayed":
                await self._leave_relay(endpoint, session, controlling=credentials.controlling)
                return
            self._tunnels.aim(self.peer, endpoint)
            if credentials.controlling:
                self._tunnels.initiate(self.peer)
            await happens(session, HANDSHAKE_DEADLINE_S)
        except TimedOutError:
            log.info("peer %s: no path in this attempt", self.peer.id)
        finally:
            self._checking = None
            self._pairs, self._checked_at = agent.pairs(), asyncio.get_running_loop().time()
            self._linger = asyncio.create_task(self._close_later(agent), name=f"linger {self.peer.id}")
            for task in (finding, done):
                task.cancel()
            await asyncio.gather(finding, done, return_exceptions=True)

    async def _leave_relay(self, endpoint: Endpoint, session: asyncio.Event, *, controlling: bool) -> None:
        """There is a session, so a ping by the path that the checks have found suffices, and each side makes
        its own: the other may have moved already. A peer that has begun anew does not know the session."""
        for pause_s in TRIALS_S:
            self._heard_direct(self.peer, endpoint)
            if await happens(session, pause_s):
                return
            if controlling:
                self._tunnels.knock(self.peer, [endpoint])

    def _check_heard(self, endpoint: Endpoint) -> None:
        """The peer's check has got through from ``endpoint``: the handshake follows at once, in place of two
        more round trips of checks, once in an attempt. Where it does not get through, the checks decide. The
        source of a check may be forged, so what we send counts as a check of our own would."""
        if self._session.is_set() or self._checking is None:
            return
        if self.peer.relayed:
            if self._may_probe(endpoint):
                self._heard_direct(self.peer, endpoint)  # there is a session: a ping by that path suffices
            return
        if self._greeted is not None or self._tunnels.answered_lately(self.peer):
            return
        if self._may_probe(endpoint):
            self._greeted, self._greeted_at = endpoint, asyncio.get_running_loop().time()
            self._tunnels.knock(self.peer, [endpoint])

    async def _close_later(self, agent: Agent) -> None:
        await asyncio.sleep(LINGER_S)
        await agent.close()

    async def _release_agent(self) -> None:
        """Close the agent of the attempt before: two cannot answer to the same credentials."""
        if self._linger is not None:
            self._linger.cancel()
            await asyncio.gather(self._linger, return_exceptions=True)
            self._linger = None
        if self._agent is not None:
            await self._agent.close()
            self._agent = None
