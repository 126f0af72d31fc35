"""Keypairs, the result of a handshake, and the three places a peer keeps them in.

``current`` seals what is sent. ``next`` is the responder's newest: it takes over with the first
authenticated data message that uses it, which proves that the initiator has it too. ``previous`` still
opens what was on its way.

Both processes keep a ``KeypairSlots`` per peer: the engine to seal and open, the control process to know
how old the current keypair is and which indices are taken. The rules are here once, so that they agree.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from dhtvpn.wireguard.constants import REJECT_AFTER_TIME


@dataclass(frozen=True, slots=True)
class Keypair:
    """Two symmetric keys and the indices that name them on the wire.

    ``local_index`` is what the peer writes into data messages to us, ``remote_index`` what we write into
    ours. ``created_at`` is in monotonic seconds.
    """

    local_index: int
    remote_index: int
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)
    initiator: bool
    created_at: float

    def expired(self, now: float) -> bool:
        """Past REJECT_AFTER_TIME: neither seals nor opens any more."""
        return now - self.created_at >= REJECT_AFTER_TIME


class SlotKeypair(Protocol):
    """What the slots need to know of a keypair."""

    @property
    def local_index(self) -> int: ...

    @property
    def remote_index(self) -> int: ...

    @property
    def initiator(self) -> bool: ...


K = TypeVar("K", bound=SlotKeypair)


class KeypairSlots(Generic[K]):
    """previous, current and next of one peer."""

    __slots__ = ("current", "next", "previous")

    def __init__(self) -> None:
        self.previous: K | None = None
        self.current: K | None = None
        self.next: K | None = None

    def __iter__(self) -> Iterator[K]:
        for keypair in (self.previous, self.current, self.next):
            if keypair is not None:
                yield keypair

    def install(self, keypair: K) -> list[K]:
        """Put a new keypair in its place; returns those that have no place any more.

        When both sides initiated at once, each has two fresh keypairs. The one with the lower indices
        wins on both sides, so that they settle on the same one instead of sending on one each.
        """
        before = list(self)
        if not keypair.initiator:
            self.next = keypair
        elif self.next is not None and _precedence(self.next) < _precedence(keypair):
            self.previous, self.current = self.current, keypair
        elif self.next is not None:
            self.previous, self.current, self.next = self.next, keypair, None
        else:
            self.previous, self.current = self.current, keypair
        return self._evicted(before)

    def confirm(self, local_index: int) -> list[K] | None:
        """The peer has used ``next``: it becomes current. Returns those that lost their place, or None when
        ``next`` is another keypair or empty."""
        if self.next is None or self.next.local_index != local_index:
            return None
        before = list(self)
        self.previous, self.current, self.next = self.current, self.next, None
        return self._evicted(before)

    def clear(self) -> list[K]:
        """Forget all three; returns them."""
        before = list(self)
        self.previous = self.current = self.next = None
        return before

    def _evicted(self, before: list[K]) -> list[K]:
        kept = list(self)
        return [keypair for keypair in before if not any(keypair is other for other in kept)]


def _precedence(keypair: SlotKeypair) -> tuple[int, int]:
    """The initiator's index, then the responder's: the same pair of numbers on both sides."""
    if keypair.initiator:
        return keypair.local_index, keypair.remote_index
    return keypair.remote_index, keypair.local_index
