"""A home router's NAT: one mapping for its node's port, port-restricted filtering, both of which expire.

RFC 4787's words: endpoint-independent mapping, address and port-dependent filtering; only outgoing
datagrams renew (REQ-6 permits that). After the mapping has expired the next datagram gets another port.
"""

from dhtvpn.endpoint import Endpoint

MIN_EXPIRY_S, MAX_EXPIRY_S = 30.0, 120.0
"""Real routers forget a UDP mapping after something in between, whatever RFC 4787 REQ-5 asks for."""

_FIRST_PORT = 20_000
_PORTS = 40_000


class SiteNat:
    """Between one node and the internet. Times are seconds of the simulation's clock."""

    def __init__(self, host: str, expiry_s: float) -> None:
        self.expiry_s = expiry_s
        self.renewals = 0
        """Mappings made so far; more than one means that the node let one expire."""
        self._host = host
        self._external = Endpoint(host, 0)
        self._used_at = float("-inf")
        self._permitted: dict[Endpoint, float] = {}

    def outgoing(self, destination: Endpoint, now: float) -> Endpoint:
        """The source that ``destination`` sees."""
        if now - self._used_at >= self.expiry_s:
            self._external = Endpoint(self._host, _FIRST_PORT + (self.renewals * 7919 + 1) % _PORTS)
            self.renewals += 1
            self._permitted.clear()
        self._used_at = now
        self._permitted[destination] = now
        if len(self._permitted) > 512:
            self._permitted = {d: at for d, at in self._permitted.items() if now - at < self.expiry_s}
        return self._external

    def admits(self, source: Endpoint, port: int, now: float) -> bool:
        """Whether a datagram from ``source`` to the external ``port`` gets through."""
        if port != self._external.port or now - self._used_at >= self.expiry_s:
            return False
        return now - self._permitted.get(source, float("-inf")) < self.expiry_s
