"""The topologies that have a name: what ``dhtvpn lab run NAME`` and the tests bring up."""

from dhtvpn.errors import UsageError
from dhtvpn.lab.topology import (
    ADDRESS_RESTRICTED,
    OPEN_FILTERING,
    PORT_RESTRICTED,
    SYMMETRIC,
    Host,
    Nat,
    Role,
    Router,
    Topology,
)

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
    )
}


def named(name: str) -> Topology:
    """The topology of that name. Raises UsageError with the names there are."""
    try:
        return TOPOLOGIES[name]
    except KeyError:
        known = ", ".join(TOPOLOGIES)
        raise UsageError(f"there is no topology {name!r}: choose one of {known}") from None
