"""What netcheck has found. Pure."""

from dataclasses import dataclass, field
from enum import Enum

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.filtering import Filtering
from dhtvpn.nat.reflexive import Mapping


class Udp(Enum):
    """Whether datagrams go out and answers come back."""

    WORKS = "works"
    NO_ANSWER = "no answer"
    """Of those who were asked."""
    NOT_TESTED = "not tested"
    """Nobody is known who could be asked."""
    NO_ADDRESS = "no address"
    """This machine has no address of the family that others could be reached from."""


@dataclass(frozen=True)
class Outside:
    """What DHT nodes see of us in one address family. ``path_mtu``: bytes of an IP packet; nothing longer
    than 1,500 is tried. ``ports_in_order``: a dependent mapping's ports can be foreseen. These and
    ``hairpinning``: None where they are not known."""

    asked: int = 0
    answered: int = 0
    rtt_ms: float | None = None
    mapping: Mapping = Mapping.UNKNOWN
    filtering: Filtering = Filtering.UNKNOWN
    hairpinning: bool | None = None
    public_endpoints: tuple[Endpoint, ...] = ()
    path_mtu: int | None = None
    ports_in_order: bool | None = None


@dataclass(frozen=True)
class Family:
    """One address family. ``addresses``: of this machine, as its peers would be told them."""

    addresses: tuple[str, ...] = ()
    default_route: bool = False
    outside: Outside = Outside()

    @property
    def udp(self) -> Udp:
        if self.outside.answered:
            return Udp.WORKS
        if not self.addresses:
            return Udp.NO_ADDRESS
        return Udp.NO_ANSWER if self.outside.asked else Udp.NOT_TESTED


@dataclass(frozen=True)
class Router:
    """One gateway that was asked to forward a port. ``offered``: the protocols that it speaks, ``external``:
    what it granted for a moment by ``protocol``. ``double_nat``: it says that it is behind another NAT."""

    gateway: str
    own: str
    offered: tuple[str, ...] = ()
    protocol: str | None = None
    external: Endpoint | None = None
    double_nat: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Directory:
    """The DHT. ``known``: addresses there were to begin with; ``answered``: of the first of them;
    ``nodes``: known after a lookup, which took ``lookup_ms``."""

    known: int = 0
    answered: int = 0
    nodes: int = 0
    lookup_ms: float | None = None


@dataclass(frozen=True)
class RunningNode:
    """A node that runs on this machine now; its port and interface are None where it does not say."""

    network: str
    process_id: int | None
    udp_port: int | None = None
    interface: str | None = None


@dataclass(frozen=True)
class Overlap:
    """A route of this machine for addresses of a network's overlay."""

    network: str
    overlay: str
    route: str


@dataclass(frozen=True)
class Machine:
    """What a node needs of this machine. ``tun_device``: /dev/net/tun is there; ``net_admin``: this process
    may make an interface; ``lan_interfaces``: where members on the LAN are looked for."""

    tun_device: bool = False
    net_admin: bool = False
    lan_interfaces: tuple[str, ...] = ()
    overlaps: tuple[Overlap, ...] = ()


@dataclass(frozen=True)
class Report:
    """Everything. ``port``: the UDP port that it was found with; ``wanted_port``: the one that was asked for
    and is taken. ``unresolved``: given names without an address. ``clock_offset_s``: how far others' clocks
    are ahead. ``routers``: None where they were not asked."""

    ipv4: Family = Family()
    ipv6: Family = Family()
    port: int = 0
    wanted_port: int | None = None
    unresolved: tuple[str, ...] = ()
    routers: tuple[Router, ...] | None = None
    directory: Directory = Directory()
    clock_offset_s: float | None = None
    machine: Machine = Machine()
    running: tuple[RunningNode, ...] = ()
    took_s: float = field(default=0.0, compare=False)

    @property
    def udp(self) -> Udp:
        """The better of the two families."""
        return min(self.ipv4.udp, self.ipv6.udp, key=list(Udp).index)
