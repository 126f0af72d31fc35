"""What the laboratory builds, in words: hosts, routers, and what lies between them.

Pure data. A host or router without ``behind`` sits on the public segment; one with ``behind`` sits on
that router's LAN. A router behind a router is a carrier's NAT in front of a home's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Network

from dhtvpn.errors import UsageError
from dhtvpn.lab.link_schedule import Conditions
from dhtvpn.lab.nat_behaviour import PORT_RESTRICTED, Filtering, Nat, can_be_direct

PUBLIC_SEGMENT = "internet"
"""The namespace that routes between all sites; no host may have this name."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")

MAX_SITES = 500
"""Sites on the public segment: each takes a /24 of 198.18.0.0/15 (RFC 2544), which holds 512."""

MAX_ON_LAN = 200
"""Machines on one router's LAN, a /24 whose first ten addresses are kept for the router."""


class Role(Enum):
    """What runs on a host."""

    BOOTSTRAP = "bootstrap"
    MEMBER = "member"
    PLAIN = "plain"


class ExpectedPath(Enum):
    """What two members can have between them, by their NATs alone."""

    DIRECT = "direct"
    RELAY = "relay"
    NONE = "none"


@dataclass(frozen=True)
class Router:
    """A router with a LAN. IPv4 is translated as ``nat`` says. IPv6, where given, is routed and not
    translated, and only replies come in unless the filtering is endpoint-independent (RFC 6092).
    ``line``: what its uplink does to frames; None: as the topology says."""

    name: str
    nat: Nat = PORT_RESTRICTED
    behind: str | None = None
    ipv6: bool = False
    lan: IPv4Network | None = None
    line: Conditions | None = None


@dataclass(frozen=True)
class Host:
    """A machine: on the public segment, or ``behind`` a router. A plain host runs nothing by itself.
    ``line``: what its uplink does to frames; None: as the topology says. ``relay``: a bootstrap node that
    relays for members, too."""

    name: str
    role: Role = Role.MEMBER
    behind: str | None = None
    ipv4: bool = True
    ipv6: bool = False
    line: Conditions | None = None
    relay: bool = False


@dataclass(frozen=True)
class Topology:
    """A named internet in miniature. Raises UsageError where the parts do not fit together.

    ``lines``: what each site's line to the public segment does, one way, where the site does not say.
    None: nothing, at the full speed of the kernel. A packet between two sites passes two lines, so their
    round trip is four times ``lines.delay_s``. ``seed``: the same one gives the same chance on every link.
    """

    name: str
    summary: str
    hosts: tuple[Host, ...]
    routers: tuple[Router, ...] = field(default=())
    lines: Conditions | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        self._check_names()
        for router in self.routers:
            self._check_router(router)
        for host in self.hosts:
            self._check_host(host)
        if sum(1 for machine in self.machines if machine.behind is None) > MAX_SITES:
            raise UsageError(f"topology {self.name}: at most {MAX_SITES} sites fit on the public segment")
        for router in self.routers:
            if sum(1 for machine in self.machines if machine.behind == router.name) > MAX_ON_LAN:
                raise UsageError(f"router {router.name}: at most {MAX_ON_LAN} machines fit behind it")

    def _check_names(self) -> None:
        seen = {PUBLIC_SEGMENT}
        for machine in self.machines:
            if not _NAME.fullmatch(machine.name):
                raise UsageError(f"{machine.name!r}: a machine's name is lower case letters, digits, hyphens")
            if machine.name in seen:
                raise UsageError(f"topology {self.name}: two machines are called {machine.name}")
            seen.add(machine.name)

    def _check_router(self, router: Router) -> None:
        visited = {router.name}
        above = router.behind
        while above is not None:
            if above in visited:
                raise UsageError(f"router {router.name} is behind itself")
            visited.add(above)
            above = self.router(above).behind
        if router.ipv6 and router.behind is not None:
            raise UsageError(f"router {router.name}: IPv6 is routed through one router only")
        if router.lan is not None and (router.lan.prefixlen != 24 or router.lan.is_global):
            raise UsageError(f"router {router.name}: a LAN is a private /24, not {router.lan}")

    def _check_host(self, host: Host) -> None:
        if host.behind is not None:
            self.router(host.behind)
        if not host.ipv4 and not host.ipv6:
            raise UsageError(f"host {host.name} has neither IPv4 nor IPv6")
        if host.behind is not None and host.ipv6 and not self.router(host.behind).ipv6:
            raise UsageError(f"host {host.name} wants IPv6, but router {host.behind} has none")

    @property
    def machines(self) -> Sequence[Host | Router]:
        """Routers first, then hosts, each in the order given."""
        return (*self.routers, *self.hosts)

    @property
    def bootstraps(self) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if host.role is Role.BOOTSTRAP)

    @property
    def members(self) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if host.role is Role.MEMBER)

    def host(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        raise UsageError(f"topology {self.name} has no host {name}")

    def router(self, name: str) -> Router:
        for router in self.routers:
            if router.name == name:
                return router
        raise UsageError(f"topology {self.name} has no router {name}")

    def line_of(self, machine: Host | Router) -> Conditions | None:
        """What the uplink of a machine does to frames; None: nothing."""
        if machine.line is not None or machine.behind is not None:
            return machine.line
        return self.lines

    def nats_of(self, host: Host) -> list[Nat]:
        """The NATs between a host and the public segment, the nearest first."""
        return [router.nat for router in self._routers_above(host)]

    def _nats_below(self, host: Host, common: Router) -> list[Nat]:
        routers = self._routers_above(host)
        return [router.nat for router in routers[: routers.index(common)]]

    def _routers_above(self, host: Host) -> list[Router]:
        """The routers between a host and the public segment, the nearest first."""
        routers = []
        above = host.behind
        while above is not None:
            router = self.router(above)
            routers.append(router)
            above = router.behind
        return routers

    def nat_label(self, host: Host) -> str:
        """For a table: ``public`` or the NATs on the way out, ``+6`` where there is IPv6 beside it;
        ``IPv6 only``."""
        if not host.ipv4:
            return "IPv6 only"
        label = " ".join(nat.short for nat in self.nats_of(host)) or "public"
        return f"{label}+6" if host.ipv6 else label

    def expected_path(self, one: Host, other: Host) -> ExpectedPath:
        """What ICE can reach between two hosts by the rules of RFC 4787 and RFC 8445."""
        if one.ipv6 and other.ipv6:
            return ExpectedPath.DIRECT
        if not (one.ipv4 and other.ipv4):
            return ExpectedPath.RELAY if self._common_family_with_a_third(one, other) else ExpectedPath.NONE
        return ExpectedPath.DIRECT if self._can_be_direct(one, other) else ExpectedPath.RELAY

    def _can_be_direct(self, one: Host, other: Host) -> bool:
        """Over IPv4. Behind a common router nothing but it and the NATs below it lies between the two."""
        above_other = self._routers_above(other)
        common = next((router for router in self._routers_above(one) if router in above_other), None)
        if common is None:
            return can_be_direct(self.nats_of(one), self.nats_of(other))
        below = [self._nats_below(host, common) for host in (one, other)]
        if not all(below):
            return True  # one of them is on the common router's own LAN: its address there is a candidate
        if not common.nat.hairpinning:
            return False
        turning = replace(common.nat, filtering=Filtering.ENDPOINT_INDEPENDENT)
        return can_be_direct([*below[0], turning], [*below[1], turning])

    def _common_family_with_a_third(self, one: Host, other: Host) -> bool:
        thirds = [host for host in self.hosts if host not in (one, other) and host.behind is None]
        return any(host.ipv4 and host.ipv6 for host in thirds)
