"""wireguard-go of Debian on a machine, set up with wg and ip as a person would."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from joined import eventually

from dhtvpn.lab import namespaces
from dhtvpn.lab.machine import Machine

Setup = dict[str, Any]
"""What ``dhtvpn stock-peer add --json`` prints."""


def interface(machine: Machine) -> str:
    """What wireguard-go's interface is called on ``machine``. No other laboratory has the same one: wg finds
    wireguard-go by a socket of that name in the file system, which namespaces of the network share."""
    match = namespaces.NAME.fullmatch(machine.namespace)
    assert match is not None
    return f"stock-{match[1]}"


@contextmanager
def stock_peer(machine: Machine) -> Iterator[tuple[str, str]]:
    """wireguard-go on ``machine``: yields its private and its public key."""
    private = machine.run(["wg", "genkey"]).stdout.strip()
    public = public_key(machine, private)
    child = machine.popen(["wireguard-go", "--foreground", interface(machine)])
    try:
        eventually(
            lambda: machine.run(["wg", "show", interface(machine)], check=False).returncode == 0,
            "wireguard-go",
        )
        yield private, public
    finally:
        child.terminate()
        child.wait(timeout=5)
        machine.reap()


def public_key(machine: Machine, private: str) -> str:
    return machine.run(["wg", "pubkey"], stdin=private).stdout.strip()


def secret_file(machine: Machine, name: str, content: str) -> str:
    """wg reads keys from files only: writes one, and tells where."""
    machine.directory.mkdir(exist_ok=True)
    path = machine.directory / name
    path.write_text(content)
    return str(path)


def set_peer(machine: Machine, setup: Setup, *words: str) -> None:
    """``wg set INTERFACE peer NODE WORDS``."""
    machine.run(["wg", "set", interface(machine), "peer", str(setup["node_public_key"]), *words])


def configure(machine: Machine, private: str, setup: Setup, keepalive: str = "off") -> None:
    """What a person would type from the setup that the node printed."""
    machine.run(["wg", "set", interface(machine), "private-key", secret_file(machine, "private", private)])
    secret_file(machine, "psk", str(setup["preshared_key"]))
    configure_without_endpoint(machine, setup)
    set_peer(machine, setup, "endpoint", str(setup["endpoint"]), "persistent-keepalive", keepalive)
    machine.run(["ip", "link", "set", interface(machine), "mtu", "1420", "up"])
    machine.run(["ip", "address", "add", f"{setup['ipv4']}/32", "dev", interface(machine)])
    machine.run(["ip", "address", "add", f"{setup['ipv6']}/128", "dev", interface(machine)])
    for network in setup["allowed_ips"]:
        machine.run(["ip", "route", "add", str(network), "dev", interface(machine)])


def configure_without_endpoint(machine: Machine, setup: Setup) -> None:
    """Only the node can start a handshake with this."""
    allowed = ",".join(str(network) for network in setup["allowed_ips"])
    set_peer(machine, setup, "preshared-key", str(machine.directory / "psk"), "allowed-ips", allowed)


def handshakes(machine: Machine) -> int:
    """Unix time of the last handshake that wireguard-go completed, 0 before the first."""
    return int(machine.run(["wg", "show", interface(machine), "latest-handshakes"]).stdout.split()[1])


def received_bytes(machine: Machine) -> int:
    """What wireguard-go has received, in bytes of its datagrams."""
    return int(machine.run(["wg", "show", interface(machine), "transfer"]).stdout.split()[1])


def endpoint(machine: Machine) -> str:
    """Where wireguard-go sends, HOST:PORT."""
    return machine.run(["wg", "show", interface(machine), "endpoints"]).stdout.split()[1]
