"""aioice's connection, made to live on a port that it shares.

What aioice keeps doing: the check list, roles and their conflicts, pair states, nomination's
bookkeeping, answers to checks. What is replaced here, and why:

- it opens no socket: one *base* per address family stands for the shared port (RFC 8445 section 5.1.1.1),
  so a remote candidate makes one pair. Of several addresses in a family a check leaves from the one at which
  the peer's own was heard, else from the one that the kernel picks for the way there;
- requests are authenticated before aioice sees them, and strangers get silence instead of a 401;
- checks are repeated until their time is over, at most a second apart, instead of 63.5 s with growing
  gaps; failed pairs are tried again, because without signalling a peer may come up later;
- an incoming check on a pair in progress sends ours again at once (RFC 8445 section 7.3.1.4);
- nomination is regular, not aggressive (RFC 8445 section 8.1.1), so both sides name the same pair, and a
  pair that fails at it gives the turn to another one;
- only the deadline of :class:`dhtvpn.nat.ice.IceAgent` fails the whole; consent is the tunnel's.

Private members of aioice that this relies on are listed in tests/unit/nat/test_aioice_members.py.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, cast

import aioice
from aioice import ice, stun
from aioice.candidate import Candidate

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import TimedOutError, UsageError
from dhtvpn.nat.candidates import CandidateKind, ice_candidate
from dhtvpn.nat.checked_pairs import CheckCount, CheckedPair, PairResult
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.stun_messages import is_authentic
from dhtvpn.nat.stun_transaction import StunTransaction

log = logging.getLogger(__name__)

MAX_PAIRS = 48
"""Pairs in one check list: the candidates that a peer may tell, and some that only its checks reveal.
RFC 8445 section 6.1.2.5 has 100 as the most that makes sense."""

CHECK_TIMEOUT_S = 5.0
"""One check, repeated, takes at most this; the next has a new transaction. Ours."""

NOMINATION_TIMEOUT_S = 2.0
"""A pair that worked and then does not answer the nomination loses its turn after this. Ours."""

State = ice.CandidatePair.State
CHECK_FAILURES = (TimedOutError, UsageError, stun.TransactionFailed)


class Credentials(Protocol):
    """ICE's user fragments and passwords of both sides (RFC 8445 section 5.3), and the role."""

    @property
    def own_ufrag(self) -> str: ...
    @property
    def own_password(self) -> str: ...
    @property
    def peer_ufrag(self) -> str: ...
    @property
    def peer_password(self) -> str: ...
    @property
    def controlling(self) -> bool: ...


class SharedTransport:
    """What aioice's StunProtocol needs of a transport."""

    def __init__(self, port: UdpPort, protocol: ice.StunProtocol) -> None:
        self._port = port
        self._protocol = protocol

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        self._port.answer(data, Endpoint(*address))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)


class _Protocol(ice.StunProtocol):
    """aioice's, whose answers tell no zone: which interface of ours a peer is on is nothing to it."""

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        destination = Endpoint(*addr)
        if destination.zone and "XOR-MAPPED-ADDRESS" in message.attributes:
            message.attributes["XOR-MAPPED-ADDRESS"] = tuple(destination.without_zone())
            message.add_message_integrity(self.receiver.local_password.encode())
        super().send_stun(message, addr)


def _nobody_listens(endpoint: Endpoint) -> None:
    """Where nobody wants to know whence checks come."""


class PortConnection(aioice.Connection):
    """The check list of one peer. ``completed`` is done when a pair has been nominated."""

    def __init__(
        self, port: UdpPort, credentials: Credentials, heard: Callable[[Endpoint], None] = _nobody_listens
    ) -> None:
        """``heard`` is told where an authentic check of the peer came from, before it is answered."""
        super().__init__(
            ice_controlling=credentials.controlling,
            local_username=credentials.own_ufrag,
            local_password=credentials.own_password,
        )
        self.remote_username = credentials.peer_ufrag
        self.remote_password = credentials.peer_password
        self.completed = asyncio.Event()
        self._port = port
        self._heard = heard
        self.proven: Endpoint | None = None
        """Where the tunnel's handshake got through before our checks were over: as good as nominated."""
        self._own_password = credentials.own_password
        self._peer_password = credentials.peer_password
        self._bases: dict[int, ice.StunProtocol] = {}
        self._running: dict[ice.CandidatePair, StunTransaction] = {}
        self._counts: dict[ice.CandidatePair, CheckCount] = {}
        self._once: set[tuple[str, int]] = set()
        """Remote addresses that get one check of their own."""
        self._unneeded: list[ice.CandidatePair] = []
        """Taken from the check list, unchecked, when another pair was nominated."""

    @property
    def nominated_pair(self) -> ice.CandidatePair | None:
        return self._nominated.get(1)

    @property
    def checks_running(self) -> int:
        return len(self._running)

    def report(self, kinds: Mapping[Endpoint, CandidateKind]) -> list[CheckedPair]:
        """Every pair that there was, the best first; ``kinds`` of remote candidates that were told."""
        return [self._report_of(pair, kinds) for pair in (*self._check_list, *self._unneeded)]

    def _report_of(self, pair: ice.CandidatePair, kinds: Mapping[Endpoint, CandidateKind]) -> CheckedPair:
        count, remote = self._counts.get(pair, CheckCount()), Endpoint(*pair.remote_addr)
        proven = remote == self.proven
        result = PairResult.SUCCEEDED if proven else _result(pair, count)
        without_answer = result in (PairResult.NO_ANSWER, PairResult.NOT_TRIED)
        overtaken = without_answer and (self.nominated_pair is not None or self.proven is not None)
        return CheckedPair(
            local=Endpoint(*pair.local_addr),
            remote=remote,
            remote_kind=kinds.get(remote, CandidateKind.PEER_REFLEXIVE),
            result=result,
            reason="another pair was faster" if overtaken else count.reason(result),
            nominated=proven if self.proven is not None else pair is self.nominated_pair,
            requests=count.requests,
            rtt_ms=count.rtt_ms,
        )

    def add_base(self, endpoint: Endpoint) -> None:
        """The shared port as local candidate of ``endpoint``'s family."""
        protocol = _Protocol(self)
        protocol.connection_made(cast(asyncio.DatagramTransport, SharedTransport(self._port, protocol)))
        protocol.local_candidate = ice_candidate(endpoint, CandidateKind.HOST, 0)
        self._protocols.append(protocol)
        self._bases[6 if endpoint.is_ipv6 else 4] = protocol

    def add_remote(self, candidate: Candidate, *, once: bool = False) -> bool:
        """Pair a peer's candidate with our base. False when the check list is full. ``once``: one check opens
        our NAT for the peer's, and brings about another one if that gets through."""
        if len(self._check_list) >= MAX_PAIRS:
            self._port.drops.count("ice", "pairs")
            return False
        if once:
            self._once.add((candidate.host, candidate.port))
        self._add_remote_candidate(candidate, candidate.host)
        return True

    def begin(self) -> None:
        """From now on incoming checks trigger ours; those that came early are looked at again."""
        self._early_checks_done = True
        for early_check in self._early_checks:
            self.check_incoming(*early_check)
        self._early_checks.clear()

    def start_next(self, retry_failed: bool) -> bool:
        """Start the check of the best pair that has none yet, or of one that failed. False: none left."""
        if self._check_list_done or self._closing:
            return False
        for pair in self._check_list:
            again = retry_failed and pair.state is State.FAILED and pair.remote_addr not in self._once
            if pair.task is None and (again or pair.state in {State.FROZEN, State.WAITING}):
                self.check_start_task(pair)
                return True
        return False

    async def stop_checks(self) -> None:
        """Cancel every check under way and wait for that; the agent goes on answering."""
        tasks = []
        for pair in self._check_list:
            if pair.task is not None:
                pair.task.cancel()
                tasks.append(pair.task)
                pair.task = None
                if pair.state is State.IN_PROGRESS:
                    self.check_state(pair, State.WAITING)
        await asyncio.gather(*tasks, return_exceptions=True)

    def handle_request(self, message: stun.Message, source: Endpoint) -> None:
        """A check for our ufrag. Answered when authentic, else dropped and counted. Never raises."""
        base = self._bases.get(6 if source.is_ipv6 else 4)
        if base is None:
            self._port.drops.count("ice", "no_family")
        elif not self._valid_username(message.attributes["USERNAME"]):
            self._port.drops.count("ice", "username")
        elif not is_authentic(message, self._own_password):
            self._port.drops.count("ice", "integrity")
        elif "FINGERPRINT" not in message.attributes:
            # On a shared port checks carry one (RFC 8489 section 14.7); the parser has compared it.
            self._port.drops.count("ice", "fingerprint")
        elif "PRIORITY" not in message.attributes:
            self._port.drops.count("ice", "priority")
        else:
            self._heard(source)
            self.request_received(message, (source.host, source.port), base)

    # aioice's hooks

    def check_incoming(
        self, message: stun.Message, addr: tuple[str, int], protocol: ice.StunProtocol
    ) -> None:
        """A triggered check (RFC 8445 section 7.3.1.4), at once also when ours is in progress."""
        if self._check_list_done:
            return
        pair = next((p for p in self._check_list if p.protocol is protocol and p.remote_addr == addr), None)
        if pair is None and len(self._check_list) >= MAX_PAIRS:
            self._port.drops.count("ice", "pairs")
            return
        running = self._running.get(pair) if pair is not None else None
        super().check_incoming(message, addr, protocol)
        if running is not None:
            running.send_again()

    async def check_start(self, pair: ice.CandidatePair) -> None:
        """One check of ``pair`` from its first request to its state, nomination included."""
        self.check_state(pair, State.IN_PROGRESS)
        try:
            await self._request(pair, nominate=False, timeout_s=CHECK_TIMEOUT_S)
            if self.ice_controlling and pair.component not in self._nominating:
                await self._nominate(pair)
        except CHECK_FAILURES as failure:
            log.debug("check of %s failed: %s", pair, failure)
            self.check_state(pair, State.FAILED)
        else:
            pair.nominated = pair.nominated or pair.remote_nominated
            self.check_state(pair, State.SUCCEEDED)
        self.check_complete(pair)

    async def _nominate(self, pair: ice.CandidatePair) -> None:
        self._nominating.add(pair.component)
        try:
            await self._request(pair, nominate=True, timeout_s=NOMINATION_TIMEOUT_S)
            pair.nominated = True
        finally:
            if not pair.nominated:
                # Another pair's turn: those that worked are checked again and may nominate.
                self._nominating.discard(pair.component)
                for other in self._check_list:
                    if other is not pair and other.state is State.SUCCEEDED:
                        self.check_state(other, State.WAITING)

    async def _request(self, pair: ice.CandidatePair, nominate: bool, timeout_s: float) -> None:
        """One authenticated Binding request and its success. Raises CHECK_FAILURES."""
        request = self.build_request(pair, nominate=nominate)
        request.add_message_integrity(self._peer_password.encode())
        destination = Endpoint(*pair.remote_addr)
        count = self._counts.setdefault(pair, CheckCount())
        count.begin()
        transaction = StunTransaction(
            self._port.stun,
            partial(self._send_check, count=count),
            bytes(request),
            destination,
            drops=self._port.drops,
            accept=lambda message: is_authentic(message, self._peer_password),
            send_out_of_turn=partial(self._send_check, count=count, triggered=True),
            repeated=nominate or pair.remote_addr not in self._once,
        )
        self._running[pair] = transaction
        try:
            response = await transaction.run(timeout_s)
        finally:
            self._running.pop(pair, None)
        now = asyncio.get_running_loop().time()
        count.answered(now)
        self._port.stun.check_budget.answered(destination, now)
        count.refused = response.message_class is not stun.Class.RESPONSE
        if count.refused:
            if response.error_code == 487:  # RFC 8445 section 7.2.5.1
                self.switch_role(ice_controlling="ICE-CONTROLLED" in request.attributes)
            raise stun.TransactionFailed(response)

    def _send_check(
        self, data: bytes, destination: Endpoint, *, count: CheckCount, triggered: bool = False
    ) -> None:
        """Within the budget of checks that have not been answered; what is refused is repeated later."""
        now = asyncio.get_running_loop().time()
        if self._port.stun.check_budget.take(destination, now, triggered=triggered):
            self._port.answer(data, destination)
            count.sent(now)
        else:
            self._port.drops.count("ice", "budget")
            count.over_budget += 1

    def check_complete(self, pair: ice.CandidatePair) -> None:
        before = list(self._check_list)
        super().check_complete(pair)
        self._unneeded += [each for each in before if each not in self._check_list]
        if self._check_list_done and self._nominated:
            self.completed.set()

    def _check_list_maybe_fail(self) -> None:
        """Only the agent's deadline gives up."""

    def data_received(self, data: bytes, component: int) -> None:
        """Not STUN: the port has other takers for that."""

    def protocol_lost(self, protocol: ice.StunProtocol) -> None:
        """Nobody waits for data here."""


def _result(pair: ice.CandidatePair, count: CheckCount) -> PairResult:
    """A check that was cut short because another pair has won, or time was up, had no answer."""
    if pair.state is State.SUCCEEDED:
        return PairResult.SUCCEEDED
    if count.refused:
        return PairResult.FAILED
    if not count.requests:
        return PairResult.NOT_TRIED
    return PairResult.CHECKING if pair.state is State.IN_PROGRESS else PairResult.NO_ANSWER
