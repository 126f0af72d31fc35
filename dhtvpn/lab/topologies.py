"""The topologies that have a name: what ``dhtvpn lab run NAME`` and the tests bring up."""

from dataclasses import replace

from dhtvpn.errors import UsageError
from dhtvpn.lab.nat_behaviour import (
    ADDRESS_RESTRICTED,
    CARRIER,
    OPEN_FILTERING,
    PORT_RESTRICTED,
    SYMMETRIC,
    Allocation,
    Nat,
)
from dhtvpn.lab.topology import Host, Role, Router, Topology

_BOOTSTRAP = Host("boot", Role.BOOTSTRAP)


def behind_nats(name: str, summary: str, nats: dict[str, Nat]) -> Topology:
    """One bootstrap node, and one member behind a NAT of its own for each name in ``nats``."""
    return Topology(
        name,
        summary,
        hosts=(_BOOTSTRAP, *(Host(member, behind=f"{member}-home") for member in nats)),
        routers=tuple(Router(f"{member}-home", nat) for member, nat in nats.items()),
    )


DEMO = Topology(
    "demo",
    "laptop and phone behind a NAT each, a public server",
    hosts=(
        _BOOTSTRAP,
        Host("laptop", behind="home"),
        Host("phone", behind="carrier"),
        Host("server"),
    ),
    routers=(Router("home", PORT_RESTRICTED), Router("carrier", PORT_RESTRICTED)),
)

PAIR = behind_nats(
    "pair",
    "two members behind a port-restricted NAT each",
    {"laptop": PORT_RESTRICTED, "phone": PORT_RESTRICTED},
)

PUBLIC = Topology("public", "two public members", hosts=(_BOOTSTRAP, Host("server"), Host("desk")))

IPV6_ONLY = Topology(
    "ipv6-only",
    "IPv6 alone, IPv6 beside a NAT, and both on a public server",
    hosts=(
        Host("boot", Role.BOOTSTRAP, ipv6=True),
        Host("server", ipv6=True),
        Host("laptop", behind="home", ipv6=True),
        Host("six", ipv4=False, ipv6=True),
    ),
    routers=(Router("home", PORT_RESTRICTED, ipv6=True),),
)

TWO_BOOTSTRAPS = Topology(
    "two-bootstraps",
    "the pair, with two bootstrap nodes",
    hosts=(
        Host("boot1", Role.BOOTSTRAP),
        Host("boot2", Role.BOOTSTRAP),
        Host("laptop", behind="home"),
        Host("phone", behind="carrier"),
    ),
    routers=(Router("home", PORT_RESTRICTED), Router("carrier", PORT_RESTRICTED)),
)

SAME_LAN = Topology(
    "same-lan",
    "two members on one LAN, a third behind another NAT",
    hosts=(
        _BOOTSTRAP,
        Host("laptop", behind="home"),
        Host("desk", behind="home"),
        Host("phone", behind="carrier"),
    ),
    routers=(Router("home", PORT_RESTRICTED), Router("carrier", PORT_RESTRICTED)),
)

MATRIX = behind_nats(
    "matrix",
    "one member behind each kind of NAT",
    {"open": OPEN_FILTERING, "addr": ADDRESS_RESTRICTED, "port": PORT_RESTRICTED, "symm": SYMMETRIC},
)

SYMMETRIC_PAIR = behind_nats(
    "symmetric",
    "a pair that no direct path can join",
    {"laptop": PORT_RESTRICTED, "phone": SYMMETRIC},
)

CARRIER_PAIR = Topology(
    "carrier",
    "a carrier's NAT in front of a home's, and another home",
    hosts=(_BOOTSTRAP, Host("laptop", behind="home"), Host("phone", behind="other")),
    routers=(
        Router("carrier", CARRIER),
        Router("home", PORT_RESTRICTED, behind="carrier"),
        Router("other", PORT_RESTRICTED),
    ),
)

SAME_CARRIER = Topology(
    "same-carrier",
    "two homes behind one carrier's NAT, which hairpins",
    hosts=(_BOOTSTRAP, Host("laptop", behind="home"), Host("phone", behind="other")),
    routers=(
        Router("carrier", CARRIER),
        Router("home", PORT_RESTRICTED, behind="carrier"),
        Router("other", PORT_RESTRICTED, behind="carrier"),
    ),
)

NO_HAIRPIN = Topology(
    "no-hairpin",
    "two homes behind one carrier's NAT, which does not",
    hosts=SAME_CARRIER.hosts,
    routers=(Router("carrier", replace(CARRIER, hairpinning=False)), *SAME_CARRIER.routers[1:]),
)

CONTIGUOUS = Topology(
    "contiguous",
    "a symmetric NAT whose ports can be foreseen, and a home",
    hosts=(
        Host("boot1", Role.BOOTSTRAP, relay=True),
        Host("boot2", Role.BOOTSTRAP),
        Host("boot3", Role.BOOTSTRAP),
        Host("laptop", behind="home"),
        Host("phone", behind="other"),
    ),
    routers=(
        Router("home", PORT_RESTRICTED),
        Router("other", replace(SYMMETRIC, allocation=Allocation.CONTIGUOUS)),
    ),
)
"""Of bootstrap nodes as many as it takes to see the order."""

SHORT_LIVED = behind_nats(
    "short-lived",
    "two homes whose mappings live for twenty seconds",
    {name: replace(PORT_RESTRICTED, expiry_s=20) for name in ("laptop", "phone")},
)

IPV6_SEGMENTS = Topology(
    "ipv6-segments",
    "a LAN without IPv4, a LAN with both, and a public server",
    hosts=(
        Host("boot", Role.BOOTSTRAP, ipv6=True),
        Host("server", ipv6=True),
        Host("laptop", behind="home", ipv6=True),
        Host("six", behind="modern", ipv4=False, ipv6=True),
    ),
    routers=(Router("home", PORT_RESTRICTED, ipv6=True), Router("modern", PORT_RESTRICTED, ipv6=True)),
)

TOPOLOGIES = {
    topology.name: topology
    for topology in (
        DEMO,
        PAIR,
        PUBLIC,
        IPV6_ONLY,
        TWO_BOOTSTRAPS,
        SAME_LAN,
        MATRIX,
        SYMMETRIC_PAIR,
        CARRIER_PAIR,
        SAME_CARRIER,
        NO_HAIRPIN,
        CONTIGUOUS,
        SHORT_LIVED,
        IPV6_SEGMENTS,
    )
}


def named(name: str) -> Topology:
    """The topology of that name. Raises UsageError with the names there are."""
    try:
        return TOPOLOGIES[name]
    except KeyError:
        known = ", ".join(TOPOLOGIES)
        raise UsageError(f"there is no topology {name!r}: choose one of {known}") from None
