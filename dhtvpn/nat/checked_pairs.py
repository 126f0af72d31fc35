"""What has become of each candidate pair of one attempt, for whoever asks why a path is what it is. Pure.

A pair has one local end, the shared port, so it is told by its remote candidate. A round trip is measured
only where one request was sent (Karn's rule): which of several was answered cannot be told.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.candidates import CandidateKind

MAX_REPORTED: Final = 32
"""Pairs of one report, ours: what a person reads, and a bound on what is kept for each peer."""


class PairResult(Enum):
    """What came of a candidate pair."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The peer refused."""
    NO_ANSWER = "no answer"
    CHECKING = "checking"
    NOT_TRIED = "not tried"


@dataclass(frozen=True)
class CheckedPair:
    """One pair. ``reason`` says more where the result does not explain itself."""

    local: Endpoint | None
    """Ours of the same family; None where there is none."""
    remote: Endpoint
    remote_kind: CandidateKind
    result: PairResult
    reason: str | None = None
    nominated: bool = False
    requests: int = 0
    """Checks sent."""
    rtt_ms: float | None = None


@dataclass
class CheckCount:
    """What an agent counts of one pair while it checks. Times in monotonic seconds."""

    requests: int = 0
    over_budget: int = 0
    """Requests that the budget for unanswered checks did not allow."""
    refused: bool = False
    rtt_ms: float | None = None
    _sent_at: float = field(default=0.0, repr=False)
    _of_this_request: int = field(default=0, repr=False)

    def begin(self) -> None:
        """A new transaction."""
        self._of_this_request = 0

    def sent(self, now: float) -> None:
        self.requests += 1
        self._of_this_request += 1
        self._sent_at = now

    def answered(self, now: float) -> None:
        if self._of_this_request == 1:
            self.rtt_ms = (now - self._sent_at) * 1e3

    def reason(self, result: PairResult) -> str | None:
        """In words, where there is something to say."""
        if result is PairResult.NOT_TRIED:
            return "budget" if self.over_budget else "not its turn yet"
        if result is PairResult.FAILED:
            return "refused by the peer"
        if result is PairResult.NO_ANSWER and self.over_budget:
            return "budget for unanswered checks used up"
        return None
