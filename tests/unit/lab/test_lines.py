"""Which links of a topology are emulated, under which conditions, from the command line to the plan."""

from dataclasses import replace

import pytest

from dhtvpn.cli.lab_lines import with_lines
from dhtvpn.errors import UsageError
from dhtvpn.lab import topologies
from dhtvpn.lab.addressing import plan
from dhtvpn.lab.link_schedule import Conditions
from dhtvpn.lab.topology import Topology

FAR, NEAR = Conditions(delay_s=0.05), Conditions(delay_s=0.001)


def of_the_command(**chosen: float) -> Topology:
    options = {"delay_ms": 0.0, "jitter_ms": 0.0, "loss": 0.0, "reordering": 0.0, **chosen}
    return with_lines(topologies.PAIR, **options, seed=7)  # type: ignore[arg-type]


def test_options_are_milliseconds_and_percent() -> None:
    built = of_the_command(delay_ms=25, jitter_ms=5, loss=0.5, reordering=1)
    assert built.lines == Conditions(0.025, 0.005, 0.005, 0.01)
    assert built.seed == 7


def test_without_options_nothing_is_emulated() -> None:
    assert of_the_command().lines is None
    assert all(link.conditions is None for link in plan(of_the_command()).links)


def test_jitter_without_as_much_delay_is_refused() -> None:
    with pytest.raises(UsageError, match="jitter"):
        of_the_command(delay_ms=1, jitter_ms=2)


def test_lines_are_those_to_the_public_segment_unless_a_machine_says_otherwise() -> None:
    hosts = tuple(
        replace(host, line=NEAR) if host.name == "phone" else host for host in topologies.PAIR.hosts
    )
    built = plan(replace(topologies.PAIR, hosts=hosts, lines=FAR))
    assert {link.machine: link.conditions for link in built.links} == {
        "laptop-home": FAR,
        "phone-home": FAR,
        "boot": FAR,
        "laptop": None,
        "phone": NEAR,
    }


def test_both_ends_of_an_emulated_line_have_addresses_of_their_own() -> None:
    links = [link for link in plan(replace(topologies.PAIR, lines=FAR)).links if link.conditions]
    addresses = [address for link in links for address in (link.hardware, link.upstream_hardware)]
    assert None not in addresses
    assert len(set(addresses)) == 2 * len(links)
