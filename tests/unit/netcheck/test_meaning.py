"""What a report means: every finding, when it is there and when not."""

from dataclasses import replace

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.filtering import Filtering
from dhtvpn.nat.reflexive import Mapping
from dhtvpn.netcheck.meaning import Finding, Level, meaning
from dhtvpn.netcheck.report import (
    Directory,
    Family,
    Machine,
    Outside,
    Overlap,
    Report,
    Router,
    RunningNode,
    Udp,
)
from dhtvpn.netcheck.verdict import Peer, Verdict, direct_with, verdict

SEEN = Endpoint("198.51.100.7", 50000)
ROUTER = Router("192.168.1.1", "192.168.1.10")
DIRECT = {Peer.PUBLIC, Peer.OPEN, Peer.PORT_RESTRICTED, Peer.SYMMETRIC}


def outside(
    mapping: Mapping = Mapping.ENDPOINT_INDEPENDENT,
    filtering: Filtering = Filtering.BY_PORT,
    mtu: int | None = 1500,
    *,
    hairpinning: bool | None = False,
) -> Outside:
    return Outside(2, 2, 20.0, mapping, filtering, hairpinning, (SEEN,), mtu)


def over_ipv4(found: Outside, **more: object) -> Report:
    """A healthy machine behind a NAT, with IPv4 alone."""
    return replace(
        Report(
            ipv4=Family(("192.168.1.10",), True, found),
            port=50000,
            directory=Directory(2, 2, 2, 30.0),
            clock_offset_s=0.2,
            machine=Machine(True, True, ("eth0",)),
        ),
        **more,  # type: ignore[arg-type]
    )


IPV6 = Family(
    ("2001:db8::5",),
    True,
    Outside(2, 2, 20.0, Mapping.NONE, Filtering.BY_PORT, None, (Endpoint("2001:db8::5", 50000),), 1500),
)
HOME = over_ipv4(outside())


def found(report: Report) -> dict[str, Finding]:
    findings = meaning(report)
    assert len({finding.code for finding in findings}) == len(findings)
    return {finding.code: finding for finding in findings}


@pytest.mark.parametrize(
    ("mapping", "filtering", "expected"),
    [
        (Mapping.NONE, Filtering.NOT_BY_PORT, Verdict.ANYONE),
        (Mapping.NONE, Filtering.BY_PORT, Verdict.MOST),
        (Mapping.NONE, Filtering.UNKNOWN, Verdict.MOST),
        (Mapping.ENDPOINT_INDEPENDENT, Filtering.NOT_BY_PORT, Verdict.ANYONE),
        (Mapping.ENDPOINT_INDEPENDENT, Filtering.BY_PORT, Verdict.MOST),
        (Mapping.ENDPOINT_INDEPENDENT, Filtering.UNKNOWN, Verdict.MOST),
        (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.NOT_BY_PORT, Verdict.SOME),
        (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.BY_PORT, Verdict.SOME),
        (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.UNKNOWN, Verdict.SOME),
        (Mapping.UNKNOWN, Filtering.NOT_BY_PORT, Verdict.UNKNOWN),
        (Mapping.UNKNOWN, Filtering.BY_PORT, Verdict.UNKNOWN),
        (Mapping.UNKNOWN, Filtering.UNKNOWN, Verdict.UNKNOWN),
    ],
)
def test_the_verdict_of_every_nat(mapping: Mapping, filtering: Filtering, expected: Verdict) -> None:
    report = over_ipv4(outside(mapping, filtering))
    assert verdict(report) is expected
    code = "mapping-unknown" if expected is Verdict.UNKNOWN else f"direct-{expected.value}"
    assert code in found(report)
    direct = direct_with(report)
    assert direct[Peer.PUBLIC] is True and direct[Peer.OPEN] is True and direct[Peer.IPV6] is False
    if mapping in (Mapping.NONE, Mapping.ENDPOINT_INDEPENDENT) and filtering is Filtering.UNKNOWN:
        assert direct[Peer.SYMMETRIC] is None


@pytest.mark.parametrize("filtering", Filtering)
def test_ports_in_order_reach_the_usual_home_routers(filtering: Filtering) -> None:
    symmetric = outside(Mapping.ADDRESS_AND_PORT_DEPENDENT, filtering)
    report = over_ipv4(replace(symmetric, ports_in_order=True))
    assert verdict(report) is Verdict.MOST
    assert "in order" in found(report)["direct-most"].text
    direct = direct_with(report)
    assert (direct[Peer.PORT_RESTRICTED], direct[Peer.SYMMETRIC]) == (True, False)
    assert verdict(over_ipv4(replace(symmetric, ports_in_order=False))) is Verdict.SOME


@pytest.mark.parametrize("mapping", Mapping)
def test_a_port_that_the_router_forwards_makes_everything_direct(mapping: Mapping) -> None:
    router = replace(ROUTER, offered=("pcp",), protocol="pcp", external=Endpoint(SEEN.host, 41000))
    report = over_ipv4(outside(mapping), routers=(router,))
    assert verdict(report) is Verdict.ANYONE
    assert "pcp" in found(report)["direct-anyone"].text
    assert "port-mapping" in found(report)


def test_a_mapping_at_another_address_is_not_believed() -> None:
    router = replace(ROUTER, offered=("upnp",), protocol="upnp", external=Endpoint("203.0.113.9", 41000))
    report = over_ipv4(outside(Mapping.ADDRESS_AND_PORT_DEPENDENT), routers=(router,))
    assert verdict(report) is Verdict.SOME
    assert "bridge mode" in str(found(report)["double-nat"].advice)
    assert "port-mapping" not in found(report)


def test_only_neighbours_have_answered() -> None:
    """They see our private address: that is no public one."""
    report = over_ipv4(Outside(1, 1, 1.0))
    assert verdict(report) is Verdict.UNKNOWN
    assert set(direct_with(report).values()) == {None, False}
    assert "only-local" in found(report) and "mapping-unknown" not in found(report)
    over_ipv6_too = replace(report, ipv6=IPV6)
    assert "only-local" not in found(over_ipv6_too) and "mapping-unknown" in found(over_ipv6_too)


def test_every_word_of_a_router() -> None:
    silent = over_ipv4(outside(), routers=(ROUTER,))
    assert found(silent)["no-port-mapping"].level is Level.NOTE
    refusing = replace(ROUTER, offered=("upnp",), detail="upnp: the gateway says error 606")
    assert "606" in found(over_ipv4(outside(), routers=(refusing,)))["port-mapping-refused"].text
    double = replace(ROUTER, offered=("pcp",), double_nat=True, detail="10.0.0.2 is not a public one")
    assert "10.0.0.2" in found(over_ipv4(outside(), routers=(double,)))["double-nat"].text
    pinhole = Router("fe80::1", "2001:db8::5", ("pcp",), "pcp", Endpoint("2001:db8::5", 41000))
    assert "pinhole" in found(over_ipv4(outside(), routers=(pinhole,)))
    assert verdict(over_ipv4(outside(), routers=(pinhole,))) is Verdict.MOST
    public = over_ipv4(outside(Mapping.NONE, Filtering.NOT_BY_PORT), routers=(ROUTER,))
    assert "no-port-mapping" not in found(public)
    assert not {"no-port-mapping", "port-mapping"} & found(HOME).keys(), "nobody was asked"


def test_no_contact() -> None:
    report = Report(ipv4=Family(("192.168.1.10",), True), machine=Machine(True, True))
    assert report.udp is Udp.NOT_TESTED and verdict(report) is Verdict.UNKNOWN
    assert set(direct_with(report).values()) == {None, False}
    first = meaning(report)[0]
    assert first.code == "no-contact" and "--bootstrap HOST:PORT" in str(first.advice)
    assert [finding.code for finding in meaning(report)] == ["no-contact"]


def test_a_name_that_nobody_knows() -> None:
    report = Report(ipv4=Family(("192.168.1.10",)), unresolved=("node.example:1",))
    assert "node.example:1" in found(report)["unresolved"].text
    assert "no-contact" not in found(report)


def test_no_network() -> None:
    report = Report(machine=Machine(True, True))
    assert report.udp is Udp.NO_ADDRESS and verdict(report) is Verdict.NOBODY
    assert [finding.code for finding in meaning(report)] == ["no-network"]


@pytest.mark.parametrize("asked", [1, 3])
def test_udp_blocked(asked: int) -> None:
    report = over_ipv4(Outside(asked=asked), directory=Directory(asked), clock_offset_s=None)
    assert report.udp is Udp.NO_ANSWER and verdict(report) is Verdict.NOBODY
    assert set(direct_with(report).values()) == {False}
    assert ("one" if asked == 1 else "any of 3") in found(report)["udp-no-answer"].text
    assert "dht-no-answer" not in found(report)


def test_both_families() -> None:
    report = replace(HOME, ipv6=IPV6)
    assert verdict(report) is Verdict.MOST and direct_with(report)[Peer.IPV6] is True
    assert "ipv6" in found(report) and "no-ipv6" not in found(report)


def test_ipv6_alone() -> None:
    report = replace(HOME, ipv4=Family(), ipv6=IPV6)
    assert verdict(report) is Verdict.IPV6
    assert direct_with(report) == {**dict.fromkeys(DIRECT, False), Peer.IPV6: True}
    assert "relay" in found(report)["direct-ipv6"].text
    with_silent_ipv4 = replace(report, ipv4=Family(("192.168.1.10",), True, Outside(asked=2)))
    assert {"direct-ipv6", "ipv4-no-answer"} <= found(with_silent_ipv4).keys()


def test_ipv6_that_is_not_there_or_does_not_work() -> None:
    assert "no-ipv6" in found(HOME)
    assert "no-ipv6" not in found(over_ipv4(outside(filtering=Filtering.NOT_BY_PORT))), "nothing to gain"
    silent = replace(HOME, ipv6=Family(("2001:db8::5",), True, Outside(asked=2)))
    assert "ipv6-no-answer" in found(silent) and direct_with(silent)[Peer.IPV6] is False


def test_ipv6_behind_a_nat() -> None:
    def behind(mapping: Mapping) -> Report:
        return replace(HOME, ipv6=replace(IPV6, outside=outside(mapping)))

    assert direct_with(behind(Mapping.ENDPOINT_INDEPENDENT))[Peer.IPV6] is True
    assert direct_with(behind(Mapping.ADDRESS_AND_PORT_DEPENDENT))[Peer.IPV6] is False
    assert direct_with(behind(Mapping.UNKNOWN))[Peer.IPV6] is None


def test_a_firewall_on_a_public_address_is_called_one() -> None:
    text = found(over_ipv4(outside(Mapping.NONE, hairpinning=None)))["direct-most"]
    assert "firewall" in text.text and "--port" in str(text.advice)
    assert "NAT lets in" in found(HOME)["direct-most"].text


def test_hairpinning_matters_behind_a_carrier_only() -> None:
    assert "no-hairpinning" not in found(HOME)
    shared = replace(HOME, ipv4=replace(HOME.ipv4, addresses=("100.64.3.4",)))
    assert "no-hairpinning" in found(shared)
    double = over_ipv4(outside(), routers=(replace(ROUTER, offered=("pcp",), double_nat=True),))
    assert "no-hairpinning" in found(double)
    turns = over_ipv4(outside(hairpinning=True), routers=double.routers)
    assert "no-hairpinning" not in found(turns)


@pytest.mark.parametrize(
    ("mtu", "code"), [(None, None), (1500, None), (1400, "mtu"), (1280, "mtu"), (1279, "small-mtu")]
)
def test_mtu(mtu: int | None, code: str | None) -> None:
    codes = found(over_ipv4(outside(mtu=mtu))).keys() & {"mtu", "small-mtu"}
    assert codes == ({code} if code else set())


def test_dht() -> None:
    assert "dht-no-answer" in found(replace(HOME, directory=Directory(2)))
    assert "2.5 s" in found(replace(HOME, directory=Directory(2, 2, 2, 2500.0)))["dht-slow"].text
    assert not {"dht-no-answer", "dht-slow"} & found(HOME).keys()


@pytest.mark.parametrize(("offset_s", "words"), [(7200, "2 h behind"), (-600, "10 min ahead of")])
def test_clock(offset_s: float, words: str) -> None:
    finding = found(replace(HOME, clock_offset_s=offset_s))["clock"]
    assert words in finding.text and "timedatectl set-ntp true" in str(finding.advice)
    assert finding.level is Level.PROBLEM
    assert "clock" not in found(replace(HOME, clock_offset_s=offset_s / 100))
    assert "clock" not in found(replace(HOME, clock_offset_s=None))


def test_machine() -> None:
    poor = Machine(False, False, overlaps=(Overlap("home", "10.7.0.0/16", "10.0.0.0/8 dev eth1"),))
    codes = found(replace(HOME, machine=poor))
    assert codes["no-tun"].level is codes["overlap"].level is Level.PROBLEM
    assert "sudo" in str(codes["no-root"].advice)
    assert "10.0.0.0/8 dev eth1" in codes["overlap"].text
    assert not {"no-tun", "no-root", "overlap"} & found(HOME).keys()


def test_a_node_that_runs_here_and_a_port_that_is_taken() -> None:
    report = replace(HOME, running=(RunningNode("home", 7, 41000),), wanted_port=41000)
    assert "41000" in found(report)["running"].text and "50000" in found(report)["port-taken"].text
    secretive = replace(HOME, running=(RunningNode("home", 7),))
    assert "None" not in found(secretive)["running"].text


def test_problems_come_first_and_notes_last() -> None:
    report = replace(
        over_ipv4(outside(Mapping.ADDRESS_AND_PORT_DEPENDENT)), ipv6=IPV6, machine=Machine(True, False)
    )
    levels = [finding.level for finding in meaning(report)]
    assert levels == sorted(levels, key=[Level.PROBLEM, Level.GOOD, Level.NOTE].index)
    assert levels[0] is Level.PROBLEM and levels[-1] is Level.NOTE
