"""Two namespaces that a tunnel is measured between, and the wire that joins them.

The wire is a veth pair with an MTU of 1500, or, while ``emulated_link`` is in force, the link emulator.
The underlay addresses stay the same on both: a host route over the emulator's TAP device, more specific
than the veth's, turns the traffic; it goes with the device.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from dhtvpn.errors import SystemRefusedError
from dhtvpn.lab import namespaces
from dhtvpn.lab.link import Wire
from dhtvpn.lab.link_process import LinkCounters, LinkProcess
from dhtvpn.lab.link_schedule import Conditions
from dhtvpn.lab.machine import Machine

UNDERLAY_MTU = 1500
LEFT_ADDRESS, RIGHT_ADDRESS = IPv4Address("198.18.0.1"), IPv4Address("198.18.0.2")
"""Underlay addresses, of the network for benchmarks (RFC 2544); the same in every pair."""

UNDERLAY_PREFIX = 24
EMULATED = "lossy0"

_HARDWARE_ADDRESSES = ("02:00:00:00:00:01", "02:00:00:00:00:02")  # locally administered
_SETTINGS: dict[str, str | int] = {
    "net.ipv6.conf.all.accept_dad": 0,
    "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.conf.default.accept_ra": 0,
    # The route to the other side changes under a tunnel that is up; no packet may be refused for it.
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
}
_CONGESTION_CONTROL: dict[str, str | int] = {"net.ipv4.tcp_congestion_control": "cubic"}


@dataclass
class Pair:
    """``left`` sends in every measurement of one direction, ``right`` receives."""

    name: str
    prefix: str
    directory: Path
    left: Machine = field(init=False)
    right: Machine = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.right = (
            Machine(side, f"{self.prefix}{self.name}-{side}", None, self.directory / self.name / side)
            for side in ("left", "right")
        )

    @property
    def machines(self) -> tuple[Machine, Machine]:
        return self.left, self.right

    def build(self) -> None:
        """Make both namespaces and the veth pair. Raises SystemRefusedError."""
        for machine in self.machines:
            namespaces.add(machine.namespace)
            namespaces.sysctl(machine.namespace, _SETTINGS)
            # A kernel whose administrator allows only others refuses; iperf3 then asks by socket option.
            with suppress(SystemRefusedError):
                namespaces.sysctl(machine.namespace, _CONGESTION_CONTROL)
        left, right = (machine.namespace for machine in self.machines)
        namespaces.ip_batch(None, [f"link add name eth0 netns {left} type veth peer name eth0 netns {right}"])
        for namespace, address in ((left, LEFT_ADDRESS), (right, RIGHT_ADDRESS)):
            namespaces.ip_batch(
                namespace,
                [
                    f"link set eth0 mtu {UNDERLAY_MTU} up",
                    f"address add {address}/{UNDERLAY_PREFIX} dev eth0",
                ],
            )

    @contextmanager
    def emulated_link(self, conditions: Conditions, seed: int) -> Iterator[LinkCounters]:
        """While inside, the underlay's traffic goes over the emulated link.

        Raises DhtVpnError when the emulator does not start.
        """
        counters = LinkCounters()
        left, right = (machine.namespace for machine in self.machines)
        emulator = LinkProcess(self.left, [Wire(left, EMULATED, right, EMULATED, conditions, seed)])
        try:
            self._turn_to_emulator()
            yield counters
        finally:
            vars(counters).update(vars(emulator.end()))

    def _turn_to_emulator(self) -> None:
        addresses = (LEFT_ADDRESS, RIGHT_ADDRESS)
        for position, machine in enumerate(self.machines):
            other = 1 - position
            namespaces.sysctl(machine.namespace, {f"net.ipv6.conf.{EMULATED}.disable_ipv6": 1})
            namespaces.ip_batch(
                machine.namespace,
                [
                    f"link set {EMULATED} address {_HARDWARE_ADDRESSES[position]}",
                    f"link set {EMULATED} mtu {UNDERLAY_MTU} up",
                    # A permanent neighbour: an address request could be lost on this link.
                    f"neighbour add {addresses[other]} lladdr {_HARDWARE_ADDRESSES[other]} dev {EMULATED}",
                    f"route add {addresses[other]}/32 dev {EMULATED} src {addresses[position]}",
                ],
            )
