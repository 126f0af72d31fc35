"""The path MTU to one peer, found by probes: datagram PLPMTUD (RFC 8899), nobody's ICMP needed.

    BASE ──base size passes──▶ SEARCHING ──nothing left to try──▶ SEARCH_COMPLETE
     │ │                           ▲                                │      │
     │ └─no answer at all─▶ DISABLED└──────raise timer, in use──────┘      │
     └─base size is lost──▶ ERROR                                          │
     ▲                                                                     │
     └──────────────── the size in use is lost (black hole) ───────────────┘
    (ERROR and DISABLED go back to BASE after a while; a new path goes to BASE from anywhere)

Sizes are bytes of the inner packet: of the plaintext of a data message, padding included. ``overhead`` is
what stands around it on the wire: IP, UDP and data message.

A round is a probe of the size in question and, right behind it, a small one. An answer to the small probe
alone means that the large one is lost; no answer to either means that the path as a whole is slow or down,
and says nothing about size. So no timeout has to guess how long a queue is (RFC 8899 section 5.1.1 has a
PROBE_TIMER of 15 s for that), a verdict takes round trips, and a peer that does not know probes is told
from a path that is too narrow.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, assert_never

IPV4_OVERHEAD: Final = 20 + 8 + 32
IPV6_OVERHEAD: Final = 40 + 8 + 32
"""Bytes of IP header, UDP header, and header and tag of a data message."""

RELAY_OVERHEAD: Final = 8
"""Bytes that a relay on the way adds (docs/protocol/relay.md)."""

RELAYED_MTU: Final = 1360
"""DEFAULT_MTU of a path through relays: fits beside the headers of a session with a relay too."""

DEFAULT_MTU: Final = 1420
"""Bytes of an inner packet while nothing is known of the path: 1,500 less IPV6_OVERHEAD."""
BASE_OUTER: Final = 1280
"""Bytes of the base probe with its headers. RFC 8899 section 5.1.2 has BASE_PLPMTU 1,200; ours is the least
MTU of a link that carries IPv6 (RFC 8200 section 5)."""
MAX_OUTER: Final = 9216
"""The largest datagram that is tried: what Ethernet equipment calls a jumbo frame."""
LIKELY_OUTER: Final = (9000, 1500, 1492, 1480, 1420, 1400)
"""Tried before anything else, largest first: jumbo Ethernet, Ethernet, PPPoE (RFC 2516), 6in4, a tunnel
through WireGuard, and what many mobile networks have."""
ERROR_MTU: Final = 1280
"""On a path below BASE_OUTER inner IPv6 (RFC 8200 section 5) needs fragments anyway: this is what for."""
GRANULARITY: Final = 8
"""Bytes, ours: the search ends this close below the truth."""

MAX_PROBES: Final = 3
"""Rounds until a verdict: RFC 8899 section 5.1.2."""
RAISE_TIMER_S: Final = 600.0
"""Until larger sizes are tried again: PMTU_RAISE_TIMER, RFC 8899 section 5.1.1. On a path that nothing
went out on meanwhile that waits for the next packets: a search costs thousands of octets."""
CONFIRM_S: Final = 2.0
"""Ours. The size in use is confirmed this often while packets go out. A black hole lasts this long, and
the rounds of the verdict."""
IN_USE_WITHIN_S: Final = 5.0
"""Ours: what goes out within so long counts together. Pings, keepalives and new keys of an idle path make as
much in some minutes as one packet of full size, and say nothing of what such a packet meets."""
ERROR_RETRY_S: Final = 60.0
SPACING_S: Final = 0.15
"""Between rounds of one size, ours: a burst that fills a queue is over by then."""
FIRST_TIMEOUT_S, LEAST_TIMEOUT_S, MOST_TIMEOUT_S = 1.0, 0.3, 3.0
LEAST_SLACK_S: Final = 0.03
"""How long the large probe's answer may come after the small one's, at least: reordering."""
TOKEN_SIZE: Final = 8

_ANSWER: Final = 16 + 32 + RELAY_OVERHEAD
"""Bytes that an answer to a probe of the peer's puts into a UDP datagram, at most."""

_SMALL_PROBE: Final = 32 + 16 + 32
"""Bytes that a round puts into UDP datagrams beside the size that it tests."""


class State(Enum):
    """RFC 8899 section 5.2."""

    DISABLED = "disabled"
    BASE = "base"
    SEARCHING = "searching"
    SEARCH_COMPLETE = "search complete"
    ERROR = "error"


@dataclass(frozen=True)
class Probe:
    """To send: a datagram whose plaintext has ``size`` bytes; the smallest that there is where it is None."""

    token: bytes
    size: int | None


class _Verdict(Enum):
    PASSED = "passed"
    LOST = "lost"
    UNANSWERED = "unanswered"


@dataclass
class _Trial:
    """One size under test. Late answers to its probes count as long as it lasts."""

    size: int
    answered: int = 0
    """Rounds in which the small probe was answered and the large one was not."""
    unanswered: int = 0
    large: set[bytes] = field(default_factory=set)
    small: bytes = b""
    sent_at: dict[bytes, float] = field(default_factory=dict)
    round_at: float = 0.0
    small_came: bool = False
    in_flight: bool = False


class PathMtu:
    """The machine. Call :meth:`handle_timeout` at :meth:`next_timeout` and after every other call, and
    send what it returns. ``random_bytes`` makes tokens that only the peer can know."""

    def __init__(self, overhead: int, random_bytes: Callable[[int], bytes], now: float) -> None:
        self._random_bytes = random_bytes
        self._rtt_s: float | None = None
        self._sent_bytes = self._own_bytes = self._confirmed_bytes = 0
        self._counted_since = now
        self._used = False
        """Whether packets have gone out since the last search."""
        self._trial: _Trial | None = None
        self.state = State.BASE
        self._wake_at = self._confirm_at = self._raise_at = now
        self.restart(overhead, now)

    def restart(self, overhead: int, now: float) -> None:
        """The path is a new one (the peer moved): nothing is known of it."""
        self.mtu: int | None = None
        """What the path takes whole, once that is known. In ERROR: what is to be used in fragments."""
        self._overhead = overhead
        self._base = BASE_OUTER - overhead
        self._limit = MAX_OUTER - overhead + 1
        self._from_the_base(self._limit, now)

    def packets_sent(self, tx_bytes: int, now: float) -> None:
        """``tx_bytes`` is how much went to the peer so far, probes included: a path that is used is
        confirmed, an idle one left in peace."""
        if tx_bytes < self._sent_bytes:  # a new engine counts from zero
            self._own_bytes = self._confirmed_bytes = 0
        elif now - self._counted_since > IN_USE_WITHIN_S:
            self._confirmed_bytes, self._counted_since = self._sent_bytes - self._own_bytes, now
        self._sent_bytes = tx_bytes
        # half, so that a single packet of full size counts
        in_use = tx_bytes - self._own_bytes - self._confirmed_bytes >= (self.mtu or 0) // 2
        if in_use and self.state is State.SEARCH_COMPLETE and self._trial is None:
            self._used = True
            self._wake_at = min(self._wake_at, max(now, self._confirm_at))

    def answers(self) -> None:
        """A probe of the peer's is answered, which is no use of the path either."""
        self._own_bytes += _ANSWER

    def acknowledged(self, token: bytes, now: float) -> None:
        """The peer answered the probe that carried ``token``. An answer to anything else changes nothing."""
        trial = self._trial
        sent_at = trial.sent_at.pop(token, None) if trial is not None else None
        if trial is None or sent_at is None:
            return
        rtt_s = now - sent_at
        self._rtt_s = rtt_s if self._rtt_s is None else 0.75 * self._rtt_s + 0.25 * rtt_s
        if token in trial.large:
            self._conclude(trial, _Verdict.PASSED, now)
        elif token == trial.small:
            trial.small_came = True
            self._wake_at = now + max(LEAST_SLACK_S, self._rtt_s / 2)

    def refused(self, size: int, now: float) -> None:
        """This machine's own link does not take a datagram of ``size`` whole."""
        self._own_bytes -= size
        if self._trial is not None and self._trial.size == size:
            self._conclude(self._trial, _Verdict.LOST, now)

    def next_timeout(self) -> float:
        """Infinity where nothing is to be done until packets go out."""
        return self._wake_at

    def handle_timeout(self, now: float) -> list[Probe]:
        """What is due at ``now``: probes to send, the larger first."""
        if now < self._wake_at:
            return []
        if self._trial is None:
            self._begin(now)
        elif self._trial.in_flight:
            self._end_round(self._trial, now)
        if self._trial is None or now < self._wake_at:
            return []
        return self._round(self._trial, now)

    def _begin(self, now: float) -> None:
        """Nothing is being tested, and it is time for something."""
        if self.state is not State.SEARCH_COMPLETE or self.mtu is None:
            self._from_the_base(self._limit, now)
            return
        self._confirmed_bytes = self._sent_bytes - self._own_bytes
        self._test(self.mtu, now)

    def _from_the_base(self, lost: int, now: float) -> None:
        self.state = State.BASE
        self._passed, self._lost = 0, lost
        self._test(self._base, now)

    def _test(self, size: int, now: float) -> None:
        self._trial, self._wake_at = _Trial(size), now

    def _round(self, trial: _Trial, now: float) -> list[Probe]:
        large, trial.small = self._random_bytes(TOKEN_SIZE), self._random_bytes(TOKEN_SIZE)
        trial.large.add(large)
        trial.sent_at[large] = trial.sent_at[trial.small] = trial.round_at = now
        trial.small_came, trial.in_flight = False, True
        timeout_s = FIRST_TIMEOUT_S if self._rtt_s is None else 4 * self._rtt_s
        self._wake_at = now + min(max(timeout_s, LEAST_TIMEOUT_S), MOST_TIMEOUT_S)
        self._own_bytes += trial.size + _SMALL_PROBE
        return [Probe(large, trial.size), Probe(trial.small, None)]

    def _end_round(self, trial: _Trial, now: float) -> None:
        """Time is up for the large probe."""
        trial.in_flight = False
        if trial.small_came:
            trial.answered += 1
        else:
            trial.unanswered += 1
        self._wake_at = max(now, trial.round_at + SPACING_S)
        if trial.answered >= MAX_PROBES:
            self._conclude(trial, _Verdict.LOST, now)
        elif trial.unanswered >= MAX_PROBES:
            self._conclude(trial, _Verdict.UNANSWERED, now)

    def _conclude(self, trial: _Trial, verdict: _Verdict, now: float) -> None:
        self._trial = None
        match self.state:
            case State.BASE:
                self._base_tested(verdict, now)
            case State.SEARCHING:
                self._size_tested(trial.size, verdict, now)
            case State.SEARCH_COMPLETE:
                self._confirmed(trial.size, verdict, now)
            case State.ERROR | State.DISABLED:
                pass  # nothing is tested in these
            case _:
                assert_never(self.state)

    def _base_tested(self, verdict: _Verdict, now: float) -> None:
        match verdict:
            case _Verdict.PASSED:
                self.state = State.SEARCHING
                self._takes(self._base)
                self._search(now)
            case _Verdict.LOST:
                self.state, self.mtu = State.ERROR, ERROR_MTU
                self._wake_at = now + ERROR_RETRY_S
            case _Verdict.UNANSWERED:
                # a peer that knows no probes, or a path that is down: liveness tells those apart
                self.state = State.DISABLED
                self._wake_at = now + (RAISE_TIMER_S if self._rtt_s is None else ERROR_RETRY_S)

    def _size_tested(self, size: int, verdict: _Verdict, now: float) -> None:
        match verdict:
            case _Verdict.PASSED:
                self._takes(size)
                self._search(now)
            case _Verdict.LOST:
                self._lost = size
                self._search(now)
            case _Verdict.UNANSWERED:
                self._raise_at = now + ERROR_RETRY_S  # the search was cut short: take it up soon
                self._complete(now)

    def _takes(self, size: int) -> None:
        """A size has passed. Where nothing was known before, one below the default is used only once the
        search is done: a TCP connection that starts meanwhile would keep to it for all its life."""
        self._passed = size
        if self.mtu is not None or size >= DEFAULT_MTU:
            self.mtu = size

    def _confirmed(self, size: int, verdict: _Verdict, now: float) -> None:
        if verdict is _Verdict.PASSED and now >= self._raise_at:
            self.state, self._lost, self._used = State.SEARCHING, self._limit, False
            self._search(now)
            return
        if verdict is not _Verdict.LOST:
            self._raise_at = max(self._raise_at, now + CONFIRM_S)
            self._complete(now)
            return
        # Black hole (RFC 8899 section 4.3). The base size is likely to pass: it is used at once.
        self.mtu = min(size, self._base)
        self._from_the_base(size, now)

    def _search(self, now: float) -> None:
        size = self._next_size()
        if size is not None:
            self._test(size, now)
            return
        self._raise_at = now + RAISE_TIMER_S
        self._complete(now)

    def _complete(self, now: float) -> None:
        self.state, self.mtu = State.SEARCH_COMPLETE, self._passed
        self._confirm_at = now + CONFIRM_S
        self._wake_at = max(now, self._raise_at) if self._used else float("inf")

    def _next_size(self) -> int | None:
        """Between what passed and what was lost: likely sizes, then the one just above what passed (which
        ends the search when a likely size was the truth), then halves. None: close enough."""
        passed, lost = self._passed, self._lost
        if lost - passed <= GRANULARITY:
            return None
        likely = [outer - self._overhead for outer in LIKELY_OUTER]
        for size in likely:
            if passed < size < lost:
                return size
        if passed in likely or passed == self._base:
            return passed + GRANULARITY
        return (passed + lost) // 2
