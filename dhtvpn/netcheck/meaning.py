"""What a report means for a person, and what to do. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from dhtvpn.nat.filtering import Filtering
from dhtvpn.nat.port_mapping.external import is_public
from dhtvpn.nat.reflexive import Mapping
from dhtvpn.netcheck.report import Family, Report, Router, Udp
from dhtvpn.netcheck.verdict import Verdict, believed_mapping, verdict
from dhtvpn.node import clock

SMALL_MTU = 1280
"""Bytes: below it, packets of the overlay go in pieces (mesh.path_mtu.BASE_OUTER)."""
FULL_MTU = 1500
SLOW_LOOKUP_MS = 2000.0


class Level(Enum):
    GOOD = "good"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """``code`` is for programs and does not change; ``advice``: what a person could do."""

    code: str
    level: Level
    text: str
    advice: str | None = None


def meaning(report: Report) -> list[Finding]:
    """Everything worth a person's attention, the most important first."""
    findings = [
        *_about_udp(report),
        *_about_connecting(report),
        *_about_routers(report),
        *_about_families(report),
        *_about_directory(report),
        *_about_machine(report),
    ]
    order = (Level.PROBLEM, Level.GOOD, Level.NOTE)
    return sorted(findings, key=lambda finding: order.index(finding.level))


_GIVE_ONE = "give one: dhtvpn netcheck --bootstrap HOST:PORT (any dhtvpn node that strangers reach will do)"


def _about_udp(report: Report) -> Iterator[Finding]:
    if report.udp is Udp.NO_ADDRESS:
        yield Finding(
            "no-network", Level.PROBLEM, "this machine has no network address", "bring a network interface up"
        )
    elif report.udp is Udp.NOT_TESTED and not report.unresolved:
        yield Finding(
            "no-contact",
            Level.PROBLEM,
            "no DHT node is known here, so UDP, NAT, path MTU, DHT and clock cannot be tested",
            _GIVE_ONE,
        )
    elif report.udp is Udp.NO_ANSWER:
        asked = report.ipv4.outside.asked + report.ipv6.outside.asked
        nodes = "the one DHT node that is known" if asked == 1 else f"any of {asked} DHT nodes"
        yield Finding(
            "udp-no-answer",
            Level.PROBLEM,
            f"no answer from {nodes}: UDP is blocked here, or nobody is up there",
            "let UDP out in firewall and router (any port, to any port), try from another network, or try "
            "another node with --bootstrap HOST:PORT",
        )
    if report.unresolved:
        names = ", ".join(report.unresolved)
        yield Finding(
            "unresolved", Level.PROBLEM, f"no address found for {names}", "check the name, and DNS here"
        )


def _about_connecting(report: Report) -> Iterator[Finding]:
    match verdict(report):
        case Verdict.ANYONE:
            yield Finding("direct-anyone", Level.GOOD, f"direct paths to anyone: {_why_anyone(report)}")
        case Verdict.MOST:
            yield from _most(report)
        case Verdict.SOME:
            yield Finding(
                "direct-some",
                Level.PROBLEM,
                "direct paths only to members that are public or behind an open NAT: the NAT here gives each "
                "peer another port (symmetric); with the others a relay is needed",
                _OPEN_A_PORT,
            )
        case Verdict.IPV6:
            yield Finding(
                "direct-ipv6",
                Level.GOOD,
                "direct paths to members that have IPv6; those with IPv4 alone need a relay that has both",
                "give a bootstrap node that has both families and relays (dhtvpn bootstrap --relay)",
            )
        case Verdict.UNKNOWN if report.udp is Udp.WORKS and not _witnesses(report):
            yield Finding(
                "only-local",
                Level.NOTE,
                "only nodes on this side of the NAT answer: whether anybody outside can be reached is not "
                "known",
                _GIVE_ONE,
            )
        case Verdict.UNKNOWN if report.ipv4.udp is Udp.WORKS:
            yield Finding(
                "mapping-unknown",
                Level.NOTE,
                "one DHT node outside is not enough to tell how the NAT maps, and so whether direct paths "
                "can be had",
                "give a second one, at another address: --bootstrap HOST:PORT --bootstrap HOST:PORT",
            )


def _witnesses(report: Report) -> bool:
    """Whether anybody outside has seen us."""
    return any(family.outside.public_endpoints for family in (report.ipv4, report.ipv6))


_OPEN_A_PORT = (
    "turn on PCP, NAT-PMP or UPnP in the router, or forward a UDP port there by hand (dhtvpn join --port N); "
    "use IPv6; or give a bootstrap node that relays (dhtvpn bootstrap --relay)"
)


def _why_anyone(report: Report) -> str:
    router, outside = believed_mapping(report), report.ipv4.outside
    if router is not None:
        return f"the router forwards a port when asked ({router.protocol})"
    if outside.mapping is Mapping.NONE:
        return "this machine has a public address, and strangers' datagrams get in"
    return "the NAT has one mapping for all peers and does not filter by port"


def _most(report: Report) -> Iterator[Finding]:
    outside = report.ipv4.outside
    if outside.mapping is Mapping.NONE:
        where = "a firewall lets in replies only"
        advice = "let the node's UDP port in (dhtvpn join --port N keeps it the same)"
    else:
        where = "the NAT lets in replies only"
        advice = _OPEN_A_PORT
    if outside.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT:
        where = "the NAT gives each peer another port, but in order, so that nodes foresee it"
    elif outside.filtering is Filtering.UNKNOWN:
        where = "it could not be found out what is let in"
    yield Finding(
        "direct-most",
        Level.GOOD,
        f"direct paths to most members ({where}): not to those behind a symmetric NAT, which need a relay",
        advice,
    )


def _about_routers(report: Report) -> Iterator[Finding]:
    for router in report.routers or ():
        if ":" in router.gateway:
            yield from _about_pinhole(router)
        else:
            yield from _about_router(report, router)


def _about_pinhole(router: Router) -> Iterator[Finding]:
    if router.external is not None:
        text = f"the router {router.gateway} lets IPv6 in when asked ({router.protocol})"
        yield Finding("pinhole", Level.GOOD, text)


def _about_router(report: Report, router: Router) -> Iterator[Finding]:
    where = f"the router {router.gateway}"
    if router.double_nat or (router.external is not None and router is not believed_mapping(report)):
        tells = f" ({router.detail})" if router.detail else ""
        yield Finding(
            "double-nat",
            Level.NOTE,
            f"{where} maps ports, but there is another NAT in front of it{tells}",
            "put the inner router into bridge mode, or ask the provider for a public address",
        )
    elif router.external is not None:
        text = f"{where} forwards a port when asked: {router.protocol}"
        yield Finding("port-mapping", Level.GOOD, text)
    elif router.offered:
        yield Finding(
            "port-mapping-refused",
            Level.NOTE,
            f"{where} speaks {', '.join(router.offered)}, but forwards no port ({router.detail})",
            "let it in the router's settings",
        )
    elif report.ipv4.outside.mapping is not Mapping.NONE:
        yield Finding(
            "no-port-mapping",
            Level.NOTE,
            f"{where} offers neither PCP, NAT-PMP nor UPnP",
            "turn one of them on in its settings if it has them",
        )


def _about_families(report: Report) -> Iterator[Finding]:
    outside = report.ipv4.outside
    if report.ipv6.udp is Udp.WORKS and report.ipv4.udp is Udp.WORKS:
        yield Finding("ipv6", Level.GOOD, "IPv6 works: direct paths to everybody who has it, too")
    elif report.ipv4.udp is Udp.WORKS and report.ipv6.udp is Udp.NO_ANSWER:
        yield Finding(
            "ipv6-no-answer",
            Level.NOTE,
            "IPv6 is set up here, but no DHT node answers over it",
            "check the IPv6 route and firewall",
        )
    elif report.ipv4.udp is Udp.WORKS and report.ipv6.udp is Udp.NO_ADDRESS:
        if verdict(report) is not Verdict.ANYONE:
            yield Finding(
                "no-ipv6",
                Level.NOTE,
                "no IPv6 here",
                "turn it on if the provider has it: there no NAT is in the way",
            )
    elif report.ipv6.udp is Udp.WORKS and report.ipv4.udp is Udp.NO_ANSWER:
        yield Finding("ipv4-no-answer", Level.NOTE, "no DHT node answers over IPv4")
    if outside.hairpinning is False and _behind_carrier(report):
        yield Finding(
            "no-hairpinning",
            Level.NOTE,
            "the NAT does not turn datagrams round (hairpinning): members behind the same provider's NAT "
            "need a relay between each other",
        )
    yield from _about_mtu("IPv4", report.ipv4)
    yield from _about_mtu("IPv6", report.ipv6)


def _about_mtu(name: str, family: Family) -> Iterator[Finding]:
    mtu = family.outside.path_mtu
    if mtu is not None and mtu < SMALL_MTU:
        yield Finding(
            "small-mtu",
            Level.PROBLEM,
            f"the path takes only {mtu} bytes over {name}: packets go in pieces, which is slow",
            "look for a link or tunnel with a small MTU on the way",
        )
    elif mtu is not None and mtu < FULL_MTU:
        yield Finding(
            "mtu", Level.NOTE, f"the path takes {mtu} bytes over {name}; nodes find that out themselves"
        )


def _behind_carrier(report: Report) -> bool:
    """A router's own external address, or this machine's, is of a provider's private range."""
    own = [ip_address(address) for address in report.ipv4.addresses]
    shared = any(not is_public(address) and str(address).startswith("100.") for address in own)
    return shared or any(router.double_nat for router in report.routers or ())


def _about_directory(report: Report) -> Iterator[Finding]:
    directory = report.directory
    if report.udp is Udp.WORKS and not directory.answered:
        yield Finding(
            "dht-no-answer",
            Level.PROBLEM,
            "the nodes that were asked answer STUN, but not the DHT: members are not found through them",
            "try another node with --bootstrap HOST:PORT",
        )
    elif directory.lookup_ms is not None and directory.lookup_ms > SLOW_LOOKUP_MS:
        seconds = directory.lookup_ms / 1000
        yield Finding("dht-slow", Level.NOTE, f"a lookup in the DHT takes {seconds:.1f} s")
    offset_s = report.clock_offset_s
    if offset_s is not None and (wrong_s := clock.judge([offset_s])) is not None:
        text, _, advice = clock.sentence(wrong_s).partition(" (")
        yield Finding("clock", Level.PROBLEM, text, f"{advice.rstrip(')')}, or set it by hand")


def _about_machine(report: Report) -> Iterator[Finding]:
    machine = report.machine
    if not machine.tun_device:
        yield Finding(
            "no-tun",
            Level.PROBLEM,
            "/dev/net/tun is missing: this machine cannot join",
            "modprobe tun; in a container --device /dev/net/tun --cap-add NET_ADMIN",
        )
    if not machine.net_admin:
        yield Finding("no-root", Level.NOTE, "joining takes root", "run 'dhtvpn join' with sudo")
    for overlap in machine.overlaps:
        yield Finding(
            "overlap",
            Level.PROBLEM,
            f"the addresses of network {overlap.network} ({overlap.overlay}) collide with a route of this "
            f"machine ({overlap.route})",
            "leave the other network first, or create one with --ipv4 CIDR in a free range",
        )
    for node in report.running:
        port = f", UDP port {node.udp_port}" if node.udp_port is not None else ""
        yield Finding(
            "running",
            Level.NOTE,
            f"the node of network {node.network} runs here{port}: checked from port {report.port} beside it",
        )
    if report.wanted_port is not None:
        yield Finding(
            "port-taken",
            Level.NOTE,
            f"UDP port {report.wanted_port} cannot be had (taken, or below 1024 without root): checked from "
            f"port {report.port} instead",
        )
