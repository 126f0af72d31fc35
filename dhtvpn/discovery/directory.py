"""The Directory protocol: what every source of records offers, and how a reader trusts none of them.

A *topic* is known by its 20-byte ``dht_key``. Under it every writer has one *slot*; a slot holds one
*envelope* (signed, sealed bytes) with a sequence number and an expiry. A directory keeps each slot's
newest envelope; it never interprets more than that.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

KEY_LENGTH = 20
"""Octets of a dht_key and of a node id: 160 bits, as in the Kademlia paper (section 2)."""

SLOT_LENGTH = 16
"""Octets of a slot (docs/protocol/record.md)."""

MAX_ENVELOPE = 900
"""Octets; an envelope fits one datagram with room for every header on the way."""


class Inspected(Protocol):
    """What a storing node can read of an envelope without being a member."""

    @property
    def slot(self) -> bytes:
        """16 octets: the blinded writer."""

    @property
    def sequence(self) -> int:
        """64 bits, rising with every change by that writer."""

    @property
    def expires(self) -> int:
        """Unix seconds after which nobody keeps it."""


class Inspect(Protocol):
    """Check an envelope against its topic; raises DecodeError when any check fails."""

    def __call__(self, envelope: bytes, dht_key: bytes, unix_time: float, /) -> Inspected: ...


class Directory(Protocol):
    """Publish, look up and watch envelopes. Close the generators (``contextlib.aclosing``) when done."""

    async def publish(self, dht_key: bytes, envelope: bytes) -> int:
        """Store ``envelope``; returns how many *other* holders confirmed it.

        0 means that nobody else can find it yet: publish again soon. Only the publisher republishes,
        before the signed expiry. Raises DecodeError for an envelope that its own check refuses.
        """
        ...

    def lookup(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """Verified envelopes as they arrive, each slot's newest; a slot comes again when a newer one
        arrives. Ends when the search ends."""
        ...

    def watch(self, dht_key: bytes) -> AsyncGenerator[bytes, None]:
        """Like lookup, but never ends: what is there now, then every change soon after it is stored."""
        ...
