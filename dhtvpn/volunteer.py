"""The volunteer's node: DHT and STUN on one UDP port, nothing else.

It needs no root and no TUN device. What it stores is sealed: it cannot read a record, nor tell which
network it belongs to or that two epochs belong together (docs/threat-model.md).
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

from dhtvpn import files
from dhtvpn.confinement import landlock
from dhtvpn.confinement.account import take_over
from dhtvpn.confinement.places import readable
from dhtvpn.confinement.process import confine
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.remembered import RememberedContacts
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError, UsageError
from dhtvpn.nat.port import UdpPort
from dhtvpn.nat.stun_service import StunService
from dhtvpn.node.bootstrap import Bootstrapper

log = logging.getLogger(__name__)

REPORT_S = 60.0
SAVE_S = 60.0


async def run_bootstrap(
    listen: Sequence[tuple[str, int]],
    bootstrap: Sequence[str],
    state_dir: Path | None,
    report: Callable[[str, str], None],
    ready: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM.

    ``listen`` holds at most one numeric address per family, all with one port. ``bootstrap`` names other
    nodes (``HOST:PORT``) so that the volunteers' nodes form one DHT; without any, this is the first.
    Raises UsageError, SystemRefusedError.
    """
    host_v4, host_v6, number = _addresses(listen)
    drops = Drops()
    port = await UdpPort.open(number, host_v4, host_v6, drops=drops, tunnel_sockets=False, reading=False)
    try:
        contacts = _contacts(state_dir)
        _confine(state_dir)
        StunService(port)
        directory = KademliaDirectory(port.send_dht, drops=drops, families=frozenset(port.families))
        port.on_dht(directory.handle_datagram)
        port.filter_in_kernel(None)
        shown = ", ".join(str(Endpoint(host, number)) for host in (host_v4, host_v6) if host is not None)
        port.start_reading()
        await directory.start()
        report("start", f"bootstrap node on {shown} (UDP)")
        ready()
        try:
            await _serve(directory, port, bootstrap, contacts, report=report, drops=drops)
        finally:
            _save(contacts, directory, report)
            await directory.close()
    finally:
        port.close()


async def _serve(
    directory: KademliaDirectory,
    port: UdpPort,
    bootstrap: Sequence[str],
    contacts: RememberedContacts | None,
    *,
    report: Callable[[str, str], None],
    drops: Drops,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    remembered = contacts.load() if contacts is not None else []
    joiner = Bootstrapper(
        directory=directory,
        names=bootstrap,
        remembered=remembered,
        families=frozenset(port.families),
        say=report,
        answered=lambda: None,
    )

    async def tell() -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            port.count_kernel_drops()
            report(
                "status",
                f"{directory.size} nodes, {directory.stored} records, {drops.total()} datagrams dropped",
            )
            _save(contacts, directory, report)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(tell())]
            if bootstrap or remembered:
                tasks.append(group.create_task(joiner.run()))
            await stop.wait()
            for task in tasks:
                task.cancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _addresses(listen: Sequence[tuple[str, int]]) -> tuple[str | None, str | None, int]:
    """The IPv4 host, the IPv6 host and the port. Raises UsageError."""
    hosts: dict[int, str] = {}
    for host, _ in listen:
        try:
            version = ip_address(host).version
        except ValueError:
            raise UsageError(
                f"--listen takes a numeric address, such as 0.0.0.0 or [::], not {host!r}"
            ) from None
        if version in hosts:
            raise UsageError("--listen takes one IPv4 and one IPv6 address at most")
        hosts[version] = host
    numbers = {number for _, number in listen}
    if len(numbers) != 1:
        raise UsageError("give --listen once, or twice with the same port (one IPv4, one IPv6 address)")
    return hosts.get(4), hosts.get(6), numbers.pop()


def _contacts(state_dir: Path | None) -> RememberedContacts | None:
    """Where contacts are kept; a directory that cannot be made is an error, since it was asked for."""
    if state_dir is None:
        return None
    files.make_directory(state_dir)
    return RememberedContacts(state_dir / "contacts.json")


def _confine(state_dir: Path | None) -> None:
    """The port is bound: nothing takes a privilege any more, and nothing is written but the contacts."""
    try:
        who = take_over([] if state_dir is None else [state_dir])
    except OSError as error:
        log.warning("cannot hand over %s (%s): contacts are not remembered", state_dir, error.strerror)
        who = None
    places = readable(as_root=who is None and os.geteuid() == 0)
    if state_dir is not None:
        places.append((state_dir, landlock.KEEP))
    confine(who, (), places)


def _save(
    contacts: RememberedContacts | None, directory: KademliaDirectory, report: Callable[[str, str], None]
) -> None:
    if contacts is None:
        return
    try:
        contacts.save(directory.contacts())
    except SystemRefusedError as error:
        report("warning", str(error))
