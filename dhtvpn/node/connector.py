"""Brings up a path to each member and brings it up again when it is lost.

An attempt runs two ways at once, and whichever yields a session ends it:

    knock   a handshake initiation to every endpoint that worked before: one round trip when nothing
            has changed, and it needs neither directory nor ICE
    ICE     candidate pairs from both records; credentials are derived from the two static keys and the
            session nonces, so there is no signalling round (RFC 8445, with both sides "full")

The path belongs to the tunnel once a session is up: it follows authenticated packets from then on.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import TimedOutError
from dhtvpn.membership.pairwise import PairCredentials
from dhtvpn.mesh.peers import Occasion, Peer
from dhtvpn.node.tunnels import Tunnels
from dhtvpn.records.record import Candidate

log = logging.getLogger(__name__)

ICE_DEADLINE_S = 10.0
"""One ICE attempt. Checks that work need under a second; the rest allows for the peer's late start."""
HANDSHAKE_DEADLINE_S = 2.0
"""From the nominated pair to the session: two round trips on a slow path, and one loss."""
KNOCK_INTERVAL_S = 1.0
KNOCKS = 5
GRACE_S = 0.25
"""A peer that restarted usually knocks before its record arrives: wait this long before ICE."""
UNREACHABLE_AFTER_S = 25.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Between attempts; doubled each time, with jitter, so that nodes do not try in step."""
LINGER_S = 3.0
"""An agent answers checks this long after its session: the other side may still be checking."""


class Agent(Protocol):
    """What the connector needs of an ICE agent (nat/ice.py)."""

    async def connect(self, deadline_s: float) -> Endpoint: ...

    async def close(self) -> None:
        """End the attempt and let the agent go."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.gather(self._attempt, return_exceptions=True)
        await self._release_agent()

    async def _connect(self) -> None:
        """Attempt until there is a session; UNREACHABLE is said early, trying goes on."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        pause = FIRST_PAUSE_S
        fresh = asyncio.Event()
        self._session = fresh
        while not fresh.is_set():
            await self._try_once(fresh)
            if fresh.is_set():
                return
            if loop.time() - began > UNREACHABLE_AFTER_S and self.peer.move(Occasion.NO_PATH):
                self._changed(self.peer)
            try:
                await asyncio.wait_for(fresh.wait(), pause * random.uniform(0.5, 1.0))  # noqa: S311
            except TimeoutError:
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _try_once(self, session: asyncio.Event) -> None:
        """Both ways at once, until the session is up or both have failed."""
        ways = [asyncio.create_task(self._knock(session))]
        if self._credentials is not None:
            ways.append(asyncio.create_task(self._negotiate(session)))
        done = asyncio.create_task(session.wait())
        try:
            both = asyncio.gather(*ways)
            await asyncio.wait({both, done}, return_when=asyncio.FIRST_COMPLETED)
            if both.done():
                both.result()
        finally:
            for task in (*ways, done):
                task.cancel()
            await asyncio.gather(*ways, done, return_exceptions=True)

    async def _knock(self, session: asyncio.Event) -> None:
        if not self.known_endpoints:
            return
        for _ in range(KNOCKS):
            self._tunnels.knock(self.peer, self.known_endpoints)
            try:
                await asyncio.wait_for(session.wait(), KNOCK_INTERVAL_S)
            except TimeoutError:
                continue
            return

    async def _negotiate(self, session: asyncio.Event) -> None:
        credentials = self._credentials
        assert credentials is not None
        if self.known_endpoints:
            await asyncio.sleep(GRACE_S)
        await self._release_agent()
        agent = self._agent = self._make_agent(credentials, self._own_candidates(), self._candidates)
        try:
            endpoint = await agent.connect(ICE_DEADLINE_S)
            log.info("peer %s: path found to %s", self.peer.id, endpoint)
            self._tunnels.aim(self.peer, endpoint)
            if credentials.controlling:
                self._tunnels.initiate(self.peer)
            await asyncio.wait_for(session.wait(), HANDSHAKE_DEADLINE_S)
        except (TimedOutError, TimeoutError):
            log.info("peer %s: no path in this attempt", self.peer.id)
        finally:
            self._linger = asyncio.create_task(self._close_later(agent), name=f"linger {self.peer.id}")

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
