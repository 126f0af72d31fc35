"""What may be sent because of one datagram while its source address is not proven: amplification. Pure."""

from typing import Final

from dhtvpn.discovery.wire import AMPLIFICATION

MAX_UNPROVEN_DATAGRAMS: Final = 3
"""And datagrams per datagram: so the headers in front of each, whatever their length, keep to the same
factor, and with them the octets at the wire."""


class Allowance:
    """Octets and datagrams left for one request. A proven address has no limit here."""

    def __init__(self, request_octets: int, *, proven: bool) -> None:
        self.proven = proven
        self._octets = AMPLIFICATION * request_octets
        self._datagrams = MAX_UNPROVEN_DATAGRAMS

    def has(self, octets: int, *more: int) -> bool:
        """Whether a datagram of ``octets``, and more of those lengths, may go."""
        lengths = (octets, *more)
        return self.proven or (len(lengths) <= self._datagrams and sum(lengths) <= self._octets)

    def take(self, octets: int) -> bool:
        """Account for a datagram that is sent; False when it may not be."""
        if not self.has(octets):
            return False
        self._octets -= octets
        self._datagrams -= 1
        return True
