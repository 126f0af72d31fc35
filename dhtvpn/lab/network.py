"""A topology that is up: namespaces, links, routes and NAT rules made, and removed for sure.

The order matters. The register entry comes first, so that whatever a killed run leaves can be found.
Kernel parameters come before the links, because a new interface copies the defaults of its namespace.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from itertools import takewhile
from types import TracebackType
from typing import Self

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DhtVpnError, SystemRefusedError, UsageError
from dhtvpn.lab import clean, conntrack, namespaces, nft, register
from dhtvpn.lab.addressing import LAN_BRIDGE, Lan, Link, plan, renumbered
from dhtvpn.lab.link import Wire
from dhtvpn.lab.link_process import LinkProcess
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.topology import PUBLIC_SEGMENT, Router, Topology

BOOTSTRAP_PORT = 4690
START_TIMEOUT_S = 15.0
"""How long a bootstrap node may take until its UDP port is bound."""

LINK_SEEDS = 100_000
"""Seeds of one topology's links: more than it can have, so that two topologies share none."""

JOIN_TIMEOUT_S = 40.0
"""How long ``join --detach`` may take to hand back the terminal."""

_EVERY_NAMESPACE: dict[str, str | int] = {
    # Without duplicate address detection an IPv6 address works at once instead of after a second.
    "net.ipv6.conf.all.accept_dad": 0,
    "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.conf.default.accept_ra": 0,
}
# The same congestion control everywhere, so that throughput can be compared between machines. A kernel
# whose administrator allows only others refuses; then what is measured asks for it by socket option.
_CONGESTION_CONTROL: dict[str, str | int] = {"net.ipv4.tcp_congestion_control": "cubic"}
# Where br_netfilter is loaded, as by Docker, a LAN's bridge would translate what it passes to the router, and
# what is turned round to the very host that sent it would be lost at its port.
_PLAIN_BRIDGES: dict[str, str | int] = {
    "net.bridge.bridge-nf-call-iptables": 0,
    "net.bridge.bridge-nf-call-ip6tables": 0,
}
_FORWARDING: dict[str, str | int] = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
}


class Network:
    """One laboratory. Use it as a context manager, or call ``tear_down`` yourself."""

    def __init__(self, topology: Topology) -> None:
        """Bring ``topology`` up. Raises SystemRefusedError; then nothing is left behind."""
        namespaces.check_requirements()
        self.topology = topology
        self.plan = plan(topology)
        self.emulator: LinkProcess | None = None
        """Carries the frames of the links that have conditions, where there are some."""
        self._machines: dict[str, Machine] = {}
        self.entry = register.register(topology.name)
        try:
            self._machines.update((name, self._machine(name)) for name in self._names())
            self._build()
        except BaseException:
            self.tear_down()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.entry.kept:
            self.tear_down()

    def node(self, name: str) -> Machine:
        """The machine of that name: a host, a router, or ``internet``. Raises UsageError."""
        try:
            return self._machines[name]
        except KeyError:
            raise UsageError(f"topology {self.topology.name} has no machine {name}") from None

    @property
    def machines(self) -> Sequence[Machine]:
        return list(self._machines.values())

    def bootstrap_endpoints(self, member: str | None = None) -> list[Endpoint]:
        """Where the bootstrap nodes of the topology listen; with ``member``, only what it can reach."""
        want_ipv4 = member is None or self.topology.host(member).ipv4
        want_ipv6 = member is None or self.topology.host(member).ipv6
        return [
            endpoint
            for host in self.topology.bootstraps
            for endpoint in self._endpoints_of(self.node(host.name))
            if (want_ipv6 if endpoint.is_ipv6 else want_ipv4)
        ]

    @staticmethod
    def _endpoints_of(bootstrap: Machine) -> list[Endpoint]:
        addresses = (bootstrap.ipv4, bootstrap.ipv6)
        return [Endpoint(str(address), BOOTSTRAP_PORT) for address in addresses if address is not None]

    def start_bootstrap(self, name: str) -> None:
        """Start a bootstrap node, told of those before it in the topology, and return when its port is
        bound. Raises DhtVpnError with its log."""
        machine = self.node(name)
        words = [word for endpoint in self._endpoints_of(machine) for word in ("--listen", str(endpoint))]
        for earlier in takewhile(lambda host: host.name != name, self.topology.bootstraps):
            for endpoint in self._endpoints_of(self.node(earlier.name)):
                words += ["--bootstrap", str(endpoint)]
        if self.topology.host(name).relay:
            words.append("--relay")
        child = machine.daemon(machine.dhtvpn("bootstrap", *words), "bootstrap")
        try:
            machine.wait_for_port("udp", BOOTSTRAP_PORT, child, START_TIMEOUT_S)
        except DhtVpnError as error:
            log = machine.log_file("bootstrap").read_text().strip()
            raise DhtVpnError(f"the bootstrap node {name} does not start: {error}: {log[-1000:]}") from error

    def start_bootstraps(self) -> None:
        """Start every bootstrap node of the topology."""
        for host in self.topology.bootstraps:
            self.start_bootstrap(host.name)

    def create(self, member: str, name: str = "lab") -> str:
        """``dhtvpn create NAME`` on a member; returns the network-id."""
        lines = self.node(member).cli("create", name).stdout.splitlines()
        if not lines:
            raise DhtVpnError(f"{member}: dhtvpn create printed no network-id")
        return lines[0].strip()

    def join(
        self, member: str, network_id: str, *options: str, bootstraps: Sequence[Endpoint] | None = None
    ) -> None:
        """``dhtvpn join --detach`` on a member, with every bootstrap node it can reach unless told others.

        Raises DhtVpnError with what the command said.
        """
        contacts = self.bootstrap_endpoints(member) if bootstraps is None else bootstraps
        words = [word for contact in contacts for word in ("--bootstrap", str(contact))]
        self.node(member).cli(
            "join", network_id, "--name", member, *words, "--detach", *options, timeout_s=JOIN_TIMEOUT_S
        )

    def cli(self, member: str, *arguments: str, check: bool = True) -> str:
        """``dhtvpn ARGUMENTS`` on a member; returns its stdout."""
        return self.node(member).cli(*arguments, check=check).stdout

    def reboot(self, router: str, *, new_address: bool = False) -> None:
        """The router forgets its flows and mappings; with ``new_address`` its provider gives it another
        IPv4 address. It takes no time. Raises UsageError for a new address behind another router."""
        machine = self.node(router)
        if new_address and machine.link is not None:
            link = renumbered(machine.link)
            upstream = self.node(link.upstream).namespace
            namespaces.ip_batch(upstream, _upstream_neighbours(link))
            namespaces.ip_batch(machine.namespace, [f"address del {machine.link.ipv4} dev {link.interface}"])
            namespaces.ip_batch(machine.namespace, _ipv4_commands(link))
            machine.link = link
        self._build_nat(self.topology.router(router))
        conntrack.flush(machine.namespace)

    def keep(self) -> None:
        """Leave everything up when this object goes; ``dhtvpn lab clean`` removes it."""
        self.entry = register.mark_kept(self.entry)

    def tear_down(self) -> None:
        """End every process, remove every namespace and file. Safe to call twice."""
        clean.tear_down(self.entry, self.machines)

    def _names(self) -> Iterator[str]:
        yield PUBLIC_SEGMENT
        for machine in self.topology.machines:
            yield machine.name

    def _machine(self, name: str) -> Machine:
        link = None if name == PUBLIC_SEGMENT else self.plan.link(name)
        return Machine(name, f"{self.entry.prefix}{name}", link, self.entry.directory / name)

    def _build(self) -> None:
        routers = {router.name for router in self.topology.routers}
        for machine in self._machines.values():
            namespaces.add(machine.namespace)
            forwards = machine.name in routers or machine.name == PUBLIC_SEGMENT
            settings = {**_EVERY_NAMESPACE, **(_FORWARDING if forwards else {})}
            namespaces.sysctl(machine.namespace, settings)
            for wished in (_CONGESTION_CONTROL, _PLAIN_BRIDGES):
                with suppress(SystemRefusedError):
                    namespaces.sysctl(machine.namespace, wished)
        for lan in self.plan.lans:
            self._build_lan(lan)
        namespaces.ip_batch(None, [self._pair(link) for link in self.plan.links if link.conditions is None])
        self._emulate_links()
        for link in self.plan.links:
            namespaces.ip_batch(self.node(link.upstream).namespace, _upstream_commands(link))
            namespaces.ip_batch(self.node(link.machine).namespace, _downstream_commands(link))
        for router in self.topology.routers:
            self._build_nat(router)

    def _emulate_links(self) -> None:
        """One process for all links that have conditions. It ends with the laboratory."""
        wires = [
            Wire(
                self.node(link.machine).namespace,
                link.interface,
                self.node(link.upstream).namespace,
                link.upstream_port,
                link.conditions,
                self.topology.seed * LINK_SEEDS + number,
            )
            for number, link in enumerate(self.plan.links)
            if link.conditions is not None
        ]
        if wires:
            self.emulator = LinkProcess(self.node(PUBLIC_SEGMENT), wires)

    def _build_lan(self, lan: Lan) -> None:
        commands = [
            f"link add {LAN_BRIDGE} type bridge forward_delay 0 mcast_snooping 0",
            f"address add {lan.ipv4} dev {LAN_BRIDGE}",
        ]
        if lan.ipv6 is not None:
            commands.append(f"address add {lan.ipv6} dev {LAN_BRIDGE} nodad")
        commands.append(f"link set {LAN_BRIDGE} up")
        namespaces.ip_batch(self.node(lan.router).namespace, commands)

    def _build_nat(self, router: Router) -> None:
        machine = self.node(router.name)
        namespace = machine.namespace
        assert machine.link is not None  # noqa: S101 - only the public segment has none
        assert machine.link.ipv4 is not None  # noqa: S101 - every router has IPv4
        rules = nft.router_rules(router.nat, machine.link.ipv4, self.plan.lan(router.name).ipv4)
        namespaces.load_rules(namespace, "flush ruleset\n" + rules)
        expiry = router.nat.expiry_s
        # These exist only once the rules have loaded connection tracking into the namespace.
        namespaces.sysctl(
            namespace,
            {
                "net.netfilter.nf_conntrack_udp_timeout": expiry,
                "net.netfilter.nf_conntrack_udp_timeout_stream": expiry,
            },
        )

    def _pair(self, link: Link) -> str:
        """Both ends of the pair are made inside namespaces: the machine's own never sees either."""
        near, far = self.node(link.machine).namespace, self.node(link.upstream).namespace
        return (
            f"link add name {link.interface} netns {near} type veth "
            f"peer name {link.upstream_port} netns {far}"
        )


def _upstream_commands(link: Link) -> list[str]:
    port = link.upstream_port
    on_bridge = link.upstream != PUBLIC_SEGMENT
    commands = _hardware(port, link.upstream_hardware)
    commands.append(f"link set {port} up" + (f" master {LAN_BRIDGE}" if on_bridge else ""))
    if link.upstream_ipv4 is not None:
        commands.append(f"address add {link.upstream_ipv4} dev {port}")
        commands += _upstream_neighbours(link)
    if link.upstream_ipv6 is not None:
        commands.append(f"address add {link.upstream_ipv6} dev {port} nodad")
        commands += _neighbour(port, link.hardware, link.ipv6.ip if link.ipv6 else None)
    if link.delegated is not None and link.ipv6 is not None:
        commands.append(f"route add {link.delegated} via {link.ipv6.ip} dev {port}")
    return commands


def _downstream_commands(link: Link) -> list[str]:
    interface = link.interface
    commands = [*_hardware(interface, link.hardware), f"link set {interface} up"]
    if link.ipv4 is not None:
        commands += _ipv4_commands(link)
    if link.ipv6 is not None:
        commands += [
            f"address add {link.ipv6} dev {interface} nodad",
            *_neighbour(interface, link.upstream_hardware, link.ipv6_gateway),
            f"route add ::/0 via {link.ipv6_gateway} dev {interface}",
        ]
    return commands


def _ipv4_commands(link: Link) -> list[str]:
    return [
        f"address add {link.ipv4} dev {link.interface}",
        *_neighbour(link.interface, link.upstream_hardware, link.ipv4_gateway),
        f"route add default via {link.ipv4_gateway} dev {link.interface}",
    ]


def _upstream_neighbours(link: Link) -> list[str]:
    return _neighbour(link.upstream_port, link.hardware, link.ipv4.ip if link.ipv4 else None)


def _hardware(interface: str, hardware: str | None) -> list[str]:
    return [] if hardware is None else [f"link set {interface} address {hardware}"]


def _neighbour(interface: str, hardware: str | None, address: IPv4Address | IPv6Address | None) -> list[str]:
    """A permanent neighbour: asking for the address would take a round trip of an emulated line."""
    if hardware is None or address is None:
        return []
    return [f"neighbour replace {address} lladdr {hardware} dev {interface}"]
