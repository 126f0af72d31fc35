"""Laboratories for tests: real namespaces, real kernel NAT, and nothing left behind."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from dhtvpn.lab import clean, namespaces, register
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Topology

LabFactory = Callable[[Topology], Network]


@pytest.fixture(scope="session")
def laboratory_possible() -> None:
    """Skip without root; a missing tool is a failure. Remove what a killed test run has left."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root: run scripts/test as root")
    namespaces.check_requirements(("ip", "nft", "sysctl", "ping", "iperf3"))
    for entry in register.entries():
        if entry.abandoned:
            clean.remove_laboratory(entry)


@pytest.fixture
def lab(laboratory_possible: None) -> Iterator[LabFactory]:
    """``network = lab(topology)``: brought up at once, taken down when the test ends, however it ends."""
    up: list[Network] = []
    with ExitStack() as stack:

        def bring_up(topology: Topology) -> Network:
            network = stack.enter_context(Network(topology))
            up.append(network)
            return network

        yield bring_up
    for network in up:
        left = [name for name in namespaces.all_of_ours() if name.startswith(network.entry.prefix)]
        assert not left
        assert not network.entry.directory.exists()
