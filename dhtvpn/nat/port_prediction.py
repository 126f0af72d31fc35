"""Foreseeing the port that a NAT gives us towards one peer, where it hands ports out in order. Pure.

Two looks from new ports of this machine, one right before and one right behind our first datagram to the
peer, show between which two ports its mapping is. So it does not matter how long a look takes, and of other
machines behind the NAT only those come in between that make a mapping within a millisecond or two.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from dhtvpn.endpoint import Endpoint

MAX_GUESSES: Final = 16
"""Ports named to the peer for one attempt, and so datagrams that it sends to them."""

FAILURES: Final = 3
"""So many attempts with guesses that came to nothing are enough, until the network changes."""

EARLIER: Final = 8
"""Ports right before one that was seen. Ours: what a node opens in a second or two when its NAT has forgotten
everything."""

LEAST_SEEN: Final = 3
"""Ports that it takes to tell order from chance: three random ones rise like that once in ten million."""

LARGEST_STEP: Final = 16
"""From one port to the next: the NAT's own step, and some mappings of other machines in between."""


def in_order(ports: Sequence[int]) -> bool | None:
    """Whether a NAT hands its ports out in order. ``ports``: those that one of ours has got, in the order of
    asking. None: too few to tell."""
    if len(set(ports)) < LEAST_SEEN:
        return None
    return all(0 < after - before <= LARGEST_STEP for before, after in pairwise(ports))


def between(before: Endpoint, after: Endpoint) -> range:
    """The ports that a mapping may have that was made after the one seen at ``before`` and before that seen
    at ``after``: none where these are no neighbours, or the NAT has begun again at its first port."""
    found = range(before.port + 1, after.port)
    return found if before.host == after.host and len(found) <= MAX_GUESSES else range(0)


def right_before(seen: Endpoint) -> range:
    """The ports that a mapping may have that was made a moment before the one of ``seen``."""
    return range(seen.port - 1, max(seen.port - 1 - EARLIER, 0), -1)
