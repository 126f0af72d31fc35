"""dhtvpn: two real nodes, or one with wireguard-go as a stock peer."""

import subprocess

from dhtvpn.lab.bench.pair import LEFT_ADDRESS, Pair
from dhtvpn.lab.bench.tunnels import (
    INNER_MTU,
    START_TIMEOUT_S,
    Ends,
    Tunnel,
    set_up_device,
    wait_until,
    write,
)
from dhtvpn.lab.bench.wireguard_tunnels import make_keys, start_wireguard_go
from dhtvpn.lab.machine import Machine

PORT = 4690
NETWORK = "bench"


class DhtVpn(Tunnel):
    """Two nodes of one network; the left one is the right one's way into the DHT."""

    def __init__(self, name: str, title: str, cipher: str) -> None:
        self.name = name
        self.title = title
        self._cipher = cipher

    def start(self, pair: Pair) -> None:
        network_id = create(pair.left)
        child = join(pair.left, NETWORK, "--cipher", self._cipher)
        # Called before it listens, it would be asked again only some seconds later.
        pair.left.wait_for_port("udp", PORT, child, START_TIMEOUT_S)
        join(pair.right, network_id, "--cipher", self._cipher, "--bootstrap", f"{LEFT_ADDRESS}:{PORT}")

    def finish(self, pair: Pair) -> Ends:
        addresses = []
        for machine in pair.machines:
            wait_for_node(machine)
            machine.cli("wait", "--peers", "1", "--timeout", f"{START_TIMEOUT_S:.0f}")
            addresses.append(str(machine.cli_json("status")["node"]["ipv4"]))
        return Ends(*addresses)


class StockPeer(Tunnel):
    """A node on the left, wireguard-go on the right, attached as ``dhtvpn stock-peer add`` says."""

    name = "dhtvpn-stock"
    title = "dhtvpn + stock peer"
    programs = ("wireguard-go", "wg")

    def start(self, pair: Pair) -> None:
        create(pair.left)
        join(pair.left, NETWORK)

    def finish(self, pair: Pair) -> Ends:
        wait_for_node(pair.left)
        private, public = make_keys(pair.right)
        setup = pair.left.cli_json("stock-peer", "add", "right", "--public-key", public)
        device = start_wireguard_go(pair.right)
        key_file = write(pair.right, "private", private)
        psk_file = write(pair.right, "psk", str(setup["preshared_key"]))
        words = ["wg", "set", device, "private-key", str(key_file), "peer", str(setup["node_public_key"])]
        words += ["preshared-key", str(psk_file), "endpoint", f"{LEFT_ADDRESS}:{PORT}"]
        # As the configuration that the node prints has it. The first one makes the stock side call.
        words += ["persistent-keepalive", "25"]
        pair.right.run([*words, "allowed-ips", ",".join(str(network) for network in setup["allowed_ips"])])
        set_up_device(pair.right, device, str(setup["ipv4"]), INNER_MTU)
        for network in setup["allowed_ips"]:
            pair.right.run(["ip", "route", "replace", str(network), "dev", device])
        node = pair.left.cli_json("status")["node"]
        return Ends(str(node["ipv4"]), str(setup["ipv4"]))


def create(machine: Machine) -> str:
    """Make a network on this machine and return its network-id."""
    return machine.cli("create", NETWORK).stdout.splitlines()[0].strip()


def join(machine: Machine, which: str, *options: str) -> subprocess.Popen[str]:
    """Start a node in the background of this process, with a fixed port."""
    words = ["join", which, "--network", NETWORK, "--name", machine.name, "--port", str(PORT)]
    return machine.daemon(machine.dhtvpn(*words, *options), "node")


def wait_for_node(machine: Machine) -> None:
    """Return when the node answers on its local API. Raises TimedOutError."""
    wait_until(
        lambda: machine.cli("status", "--json", check=False).returncode == 0,
        f"the node of {machine.namespace} runs",
    )
