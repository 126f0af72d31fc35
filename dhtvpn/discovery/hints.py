"""Discovery at addresses that somebody gave us: a member is asked there directly, as on the LAN.

What a hint names is an address only, not a key: whoever answers has to be a member, for nobody else can open
the question. Every node answers, so this runs in nodes without hints too.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from dhtvpn.discovery.neighbours import Manner, Neighbours
from dhtvpn.endpoint import Endpoint

MAX_HINTS: Final = 32
"""Addresses that are asked."""

HINTS: Final = Manner(
    room="hint",
    ask_after=(0.0, 0.0),
    ask_again=(0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0),
    ask_until_heard=True,
    answer_after=(0.0, 0.0),
    answer_pause=0.0,
    lookup_s=1.0,
    sent_at_once=64.0,
)
"""At once, and with growing pauses for as long as nobody there answers."""


class HintDirectory(Neighbours):
    """``send`` sends one datagram to one endpoint; True when it left."""

    def __init__(
        self, send: Callable[[bytes, Endpoint], bool], *, epoch_key: Callable[[int], bytes], **options: Any
    ) -> None:
        super().__init__(self._to_all, HINTS, epoch_key=epoch_key, reply=send, **options)
        self._send_to = send
        self.endpoints: tuple[Endpoint, ...] = ()
        """Who is asked."""

    @property
    def can_ask(self) -> bool:
        return bool(self.endpoints)

    def aim(self, endpoints: Sequence[Endpoint]) -> None:
        """Ask ``endpoints`` from now on, the first MAX_HINTS of them."""
        chosen = tuple(dict.fromkeys(endpoints))[:MAX_HINTS]
        if chosen != self.endpoints:
            self.endpoints = chosen
            if chosen:
                self.ask()

    def _to_all(self, data: bytes) -> int:
        return sum(self._send_to(data, endpoint) for endpoint in self.endpoints)
