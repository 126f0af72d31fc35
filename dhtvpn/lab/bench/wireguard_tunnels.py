"""wireguard-go between two namespaces, configured with wg(8)."""

import secrets

from dhtvpn.errors import DhtVpnError
from dhtvpn.lab.bench.pair import LEFT_ADDRESS, RIGHT_ADDRESS, Pair
from dhtvpn.lab.bench.tunnels import (
    INNER_MTU,
    OVERLAY_LEFT,
    OVERLAY_RIGHT,
    Tunnel,
    set_up_device,
    wait_until,
    write,
)
from dhtvpn.lab.machine import Machine

PORT = 51820


class WireguardGo(Tunnel):
    """wireguard-go at both ends."""

    name = "wireguard-go"
    title = "wireguard-go"
    programs = ("wireguard-go", "wg")

    def start(self, pair: Pair) -> None:
        devices = [start_wireguard_go(machine) for machine in pair.machines]
        keys = [make_keys(machine) for machine in pair.machines]
        underlay = (LEFT_ADDRESS, RIGHT_ADDRESS)
        overlay = (OVERLAY_LEFT, OVERLAY_RIGHT)
        for position, machine in enumerate(pair.machines):
            other = 1 - position
            private = write(machine, "private", keys[position][0])
            words = ["wg", "set", devices[position], "listen-port", str(PORT), "private-key", str(private)]
            words += ["peer", keys[other][1], "allowed-ips", f"{overlay[other]}/32"]
            machine.run([*words, "endpoint", f"{underlay[other]}:{PORT}"])
            set_up_device(machine, devices[position], overlay[position], INNER_MTU)


def start_wireguard_go(machine: Machine) -> str:
    """Start it and return its device's name.

    The name is one of a kind: the control sockets of all namespaces stand in one directory of the machine.
    """
    device = f"dvb{secrets.token_hex(4)}"
    child = machine.daemon(["wireguard-go", "--foreground", device], "wireguard-go")

    def configurable() -> bool:
        if child.poll() is not None:
            raise DhtVpnError(f"wireguard-go ended: {machine.log_file('wireguard-go').read_text()[-300:]}")
        return machine.run(["wg", "show", device], check=False).returncode == 0

    wait_until(configurable, "wireguard-go takes a configuration")
    return device


def make_keys(machine: Machine) -> tuple[str, str]:
    """A private key and its public key, base64."""
    private = machine.run(["wg", "genkey"]).stdout.strip()
    return private, machine.run(["wg", "pubkey"], stdin=private).stdout.strip()
