"""Find a direct path to one peer: ICE (RFC 8445) on the shared port, without a signalling round."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from enum import Enum

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import TimedOutError
from dhtvpn.nat.candidates import (
    MAX_REMOTE_CANDIDATES,
    CandidateKind,
    ice_candidate,
    kind_of,
    usable,
)
from dhtvpn.nat.checked_pairs import MAX_REPORTED, CheckedPair, PairResult
from dhtvpn.nat.ice_checks import Credentials, PortConnection
from dhtvpn.nat.port import UdpPort

log = logging.getLogger(__name__)

TA_S = 0.005
"""Between the first requests of one agent: RFC 8445 section 14.2 allows no less than 5 ms."""

RETRY_FAILED_S = 0.25
"""How often failed pairs are looked for. Ours: few, and the peer may come up any moment."""


class IceAgent:
    """One peer's checks. Answers the peer from when it is made until :meth:`close`.

    ``local`` and ``remote`` list (endpoint, kind) where kind is an Enum member or a word named HOST,
    REFLEXIVE, MAPPED or PREDICTED. ``local`` says which families and addresses are ours; without any, the
    families of the port. ``heard`` is told where an authentic check of the peer came from, at every one,
    before it is answered. Make it inside a running event loop. Raises UsageError when the credentials are in
    use already or the port has too many agents.
    """

    def __init__(
        self,
        port: UdpPort,
        credentials: Credentials,
        local: Iterable[tuple[Endpoint, Enum | str]],
        remote: Iterable[tuple[Endpoint, Enum | str]],
        heard: Callable[[Endpoint], None] = lambda _: None,
    ) -> None:
        self._port = port
        self._ufrag = credentials.own_ufrag
        self._closed = False
        self._connection = PortConnection(port, credentials, heard)
        self._kinds: dict[Endpoint, CandidateKind] = {}
        self._left_out: dict[Endpoint, tuple[CandidateKind, str]] = {}
        own = [endpoint for endpoint, _ in local]
        self._loopback = any(_is_loopback(endpoint) for endpoint in own)
        port.stun.add_agent(self._ufrag, self._connection.handle_request)
        for family in self._families(own):
            base = next((endpoint for endpoint in own if endpoint.is_ipv6 == (family == 6)), None)
            wildcard = Endpoint("::" if family == 6 else "0.0.0.0", port.port)  # noqa: S104
            self._connection.add_base(base if base is not None else wildcard)
        for endpoint, kind in remote:
            self.add_remote(endpoint, kind)

    def __repr__(self) -> str:
        return f"IceAgent(selected={self.selected})"

    @property
    def selected(self) -> Endpoint | None:
        """The nominated remote endpoint, None before."""
        pair = self._connection.nominated_pair
        return None if pair is None else Endpoint(*pair.remote_addr)

    @property
    def selected_kind(self) -> CandidateKind | None:
        """The kind of the nominated remote candidate; PEER_REFLEXIVE when only checks revealed it."""
        endpoint = self.selected
        return None if endpoint is None else self._kinds.get(endpoint, CandidateKind.PEER_REFLEXIVE)

    def add_remote(self, endpoint: Endpoint, kind: Enum | str) -> None:
        """One more candidate of the peer, also while connecting. Unusable ones are dropped and counted."""
        if self._closed or endpoint in self._kinds:
            return
        if not usable(endpoint, self._port.families, self._loopback):
            self._port.drops.count("ice", "unusable_candidate")
            self._leave_out(endpoint, kind, "cannot be reached from here")
        elif len(self._kinds) >= MAX_REMOTE_CANDIDATES:
            self._port.drops.count("ice", "candidates")
            self._leave_out(endpoint, kind, "too many candidates")
        else:
            known = kind_of(kind)
            once = known is CandidateKind.PREDICTED
            if self._connection.add_remote(ice_candidate(endpoint, known, len(self._kinds)), once=once):
                self._kinds[endpoint] = known

    def proven(self, endpoint: Endpoint) -> None:
        """The tunnel's handshake has got through to ``endpoint``: no better check of it is needed."""
        self._connection.proven = endpoint

    def pairs(self) -> list[CheckedPair]:
        """What has become of the candidate pairs so far: those of the check list, the best first, then
        candidates that make none."""
        checked = self._connection.report(self._kinds)
        left_out = [
            CheckedPair(None, remote, kind, PairResult.NOT_TRIED, reason)
            for remote, (kind, reason) in self._left_out.items()
        ]
        return [*checked, *left_out][:MAX_REPORTED]

    def _leave_out(self, endpoint: Endpoint, kind: Enum | str, reason: str) -> None:
        if len(self._left_out) < MAX_REPORTED:
            self._left_out[endpoint] = kind_of(kind), reason

    async def connect(self, deadline_s: float) -> Endpoint:
        """Check until a pair is nominated and return its remote endpoint.

        Raises TimedOutError after ``deadline_s``; it may then be called again. The peer may start
        earlier or later. The agent goes on answering checks in every case.
        """
        pacing = asyncio.create_task(self._pace())
        try:
            self._connection.begin()
            async with asyncio.timeout(deadline_s):
                await self._connection.completed.wait()
        except TimeoutError:
            raise TimedOutError(f"no direct path came up in {deadline_s:g} s") from None
        finally:
            pacing.cancel()
            await asyncio.gather(pacing, return_exceptions=True)
            await self._connection.stop_checks()
        selected = self.selected
        if selected is None:
            raise TimedOutError("the ICE agent was closed")
        return selected

    async def close(self) -> None:
        """Stop answering and release everything. A :meth:`connect` under way raises TimedOutError."""
        if self._closed:
            return
        self._closed = True
        self._port.stun.remove_agent(self._ufrag)
        await self._connection.close()
        self._connection.completed.set()

    async def _pace(self) -> None:
        """Start one check every TA_S, best pair first; then look for failed ones now and then."""
        retry_failed = False
        while True:
            started = self._connection.start_next(retry_failed)
            retry_failed = not started
            await asyncio.sleep(TA_S if started else RETRY_FAILED_S)

    def _families(self, own: list[Endpoint]) -> list[int]:
        wanted = {6 if endpoint.is_ipv6 else 4 for endpoint in own} or set(self._port.families)
        return sorted(wanted & set(self._port.families), reverse=True)


def _is_loopback(endpoint: Endpoint) -> bool:
    return endpoint.host == "::1" or endpoint.host.startswith("127.")
