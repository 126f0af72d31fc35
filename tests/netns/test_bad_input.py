"""What can go wrong on a machine gets one clear sentence and the right exit code, and nothing is lost."""

import subprocess
from collections.abc import Callable

import pytest
from joined import eventually, join_all, log_text, overlay, peer_of, pings, status, traces, wait_connected

from dhtvpn.lab import topologies
from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import BOOTSTRAP_PORT, Network
from dhtvpn.lab.topology import Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """``done`` failed with ``code`` and one sentence on stderr that has all ``words``; no traceback."""
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4, done.stderr


@pytest.fixture
def alone(lab: Lab) -> tuple[Machine, str]:
    """A machine with a network that it has created, and the network-id."""
    network = lab(topologies.PUBLIC)
    return network.node("server"), network.create("server")


def in_mounts(machine: Machine, mounts: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run dhtvpn with mounts of its own, made by the shell commands ``mounts``."""
    script = f'{mounts} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *machine.dhtvpn(*arguments)]
    return machine.run(command, check=False)


def test_port_in_use(alone: tuple[Machine, str]) -> None:
    server, network_id = alone
    with server.socket() as taken:
        taken.bind(("0.0.0.0", 5000))
        refused(
            server.cli("join", network_id, "--port", "5000", "--detach", check=False), 1, "5000", "--port"
        )
        bootstrap = server.cli("bootstrap", "--listen", "0.0.0.0:5000", check=False)
        refused(bootstrap, 1, "5000")


WITHOUT_PRIVILEGES = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs", "--"]


def test_without_root(alone: tuple[Machine, str]) -> None:
    server, network_id = alone
    command = server.dhtvpn("join", network_id)
    refused(server.run([*WITHOUT_PRIVILEGES, *command], check=False), 1, "takes root", "sudo")


def test_a_bootstrap_node_needs_no_privileges(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    boot = network.node("boot")
    listen = f"{boot.ipv4}:{BOOTSTRAP_PORT}"
    child = boot.daemon([*WITHOUT_PRIVILEGES, *boot.dhtvpn("bootstrap", "--listen", listen)], "bootstrap")
    boot.wait_for_port("udp", BOOTSTRAP_PORT, child, 10.0)
    network_id = network.create("server")
    for member in ("server", "desk"):
        network.join(member, network_id)
    wait_connected(network.node("server"), 1)
    child.terminate()
    assert child.wait(timeout=5) == 0


def test_without_a_tun_device(alone: tuple[Machine, str]) -> None:
    server, network_id = alone
    done = in_mounts(server, "mount -t tmpfs none /dev/net", "join", network_id, "--detach")
    refused(done, 1, "/dev/net/tun")


def test_without_ipv6_on_the_host(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    server = network.node("server")
    server.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"])
    join_all(network)
    assert pings(server, overlay(network.node("desk"))[0]).returncode == 0
    events = log_text(server)
    assert "IPv6" in events


def test_interface_name_taken(alone: tuple[Machine, str]) -> None:
    server, network_id = alone
    server.run(["ip", "link", "add", "mine", "type", "bridge"])
    refused(server.cli("join", network_id, "--interface", "mine", "--detach", check=False), 1, "mine")
    refused(server.cli("join", network_id, "--interface", "x" * 16, "--detach", check=False), 2, "x" * 16)


def test_overlay_that_collides_with_a_route(alone: tuple[Machine, str]) -> None:
    server, _ = alone
    server.run(["ip", "link", "add", "lan0", "type", "bridge"])
    server.run(["ip", "link", "set", "lan0", "up"])
    server.run(["ip", "route", "add", "10.20.0.0/16", "dev", "lan0"])
    created = server.cli_json("create", "clash", "--ipv4", "10.20.30.0/24")
    before = traces(server)
    refused(server.cli("join", "clash", "--detach", check=False), 1, "10.20.30.0/24", "10.20.0.0/16", "lan0")
    assert traces(server) == before
    assert created["ipv4"] == "10.20.30.0/24"


def test_disk_full_and_read_only(alone: tuple[Machine, str]) -> None:
    server, network_id = alone
    state = server.state_dir
    filled = f"head -c 100000 /dev/zero > {state}/full 2>&-"
    full = f"mount -t tmpfs -o size=64k none {state} && {{ {filled}; true; }}"
    refused(in_mounts(server, full, "create", "more"), 1, str(state), "space")
    read_only = f"mount --bind {state} {state} && mount -o remount,bind,ro {state}"
    refused(in_mounts(server, read_only, "join", network_id, "--detach"), 1, str(state))
    assert server.cli_json("list")["networks"][0]["name"] == "lab"


def test_damaged_state(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    join_all(network)
    server = network.node("server")
    before = status(server)["node"]["id"]
    server.cli("leave")
    directory = server.state_dir / "networks" / "lab"
    for name in ("peers.json", "contacts.json", "claim.json", "port.json"):
        (directory / name).write_bytes(b"\xff not what we wrote")
    network.join("server", "lab")
    wait_connected(server, 1)
    assert status(server)["node"]["id"] == before
    assert (directory / "peers.json.damaged").exists()
    server.cli("leave")

    identity = directory / "identity.json"
    whole = identity.read_bytes()
    identity.write_bytes(whole[:-20])
    refused(server.cli("join", "lab", "--detach", check=False), 1, str(identity))
    assert identity.read_bytes() == whole[:-20], "a damaged identity is never replaced"
    assert (directory / "identity.json.damaged").read_bytes() == whole[:-20]
    identity.write_bytes(whole)
    network.join("server", "lab")
    assert status(server)["node"]["id"] == before


def test_nothing_runs_and_nothing_is_known(alone: tuple[Machine, str]) -> None:
    server, network_id = alone
    for command in (["status"], ["peers"], ["leave"], ["ping", "desk"], ["wait", "--timeout", "1"]):
        refused(server.cli(*command, check=False), 3, "dhtvpn")
    refused(server.cli("join", "nosuch", "--detach", check=False), 3, "nosuch")
    refused(server.cli("status", "--network", "nosuch", check=False), 3, "nosuch")
    refused(server.cli("join", network_id[:-3], "--detach", check=False), 2, "short")
    mistyped = network_id[:40] + ("a" if network_id[40] != "a" else "b") + network_id[41:]
    refused(server.cli("join", mistyped, "--detach", check=False), 2, "check")
    refused(server.cli("join", network_id[:20] + "0" + network_id[21:], "--detach", check=False), 2, "21st")


def test_bootstrap_that_does_not_answer_yet(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    network_id = network.create("server")
    server = network.node("server")
    for member in ("server", "desk"):
        network.join(member, network_id)
    eventually(lambda: "no answer" in log_text(server), "it is said")
    network.start_bootstraps()
    wait_connected(server, 1)


def test_joining_twice_and_two_networks(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    join_all(network)
    server, desk = network.node("server"), network.node("desk")
    refused(server.cli("join", "lab", "--detach", check=False), 1, "already", "lab")
    other = server.cli("create", "office").stdout.splitlines()[0]
    for member in ("server", "desk"):
        network.join(member, other, "--network", "office")
    refused(server.cli("status", check=False), 2, "lab", "office", "--network")
    both = {}
    for name in ("lab", "office"):
        server.cli("wait", "--network", name, "--peers", "1", "--timeout", "20")
        both[name] = server.cli_json("status", "--network", name)
        assert pings(server, both[name]["peers"][0]["ipv4"]).returncode == 0
    for key in ("interface", "id", "ipv6", "udp_port"):
        assert both["lab"]["node"][key] != both["office"]["node"][key]
    assert len(desk.cli_json("list")["networks"]) == 2
    server.cli("leave", "--network", "office")
    assert status(server)["network"]["name"] == "lab"


def test_two_members_with_one_name(lab: Lab) -> None:
    network = lab(topologies.DEMO)
    network.start_bootstraps()
    network_id = network.create("server")
    for member, name in (("server", "server"), ("laptop", "twin"), ("phone", "twin")):
        network.join(member, network_id, "--name", name)
    server = network.node("server")
    wait_connected(server, 2)
    twins = [peer for peer in status(server)["peers"] if peer["name"] == "twin"]
    assert len({peer["ipv4"] for peer in twins}) == 2
    ambiguous = server.cli("ping", "twin", check=False)
    refused(ambiguous, 3, twins[0]["id"][:8], twins[1]["id"][:8])
    assert "direct" in server.cli("ping", twins[0]["id"], "--count", "1").stdout


def test_a_clock_that_is_hours_off_is_said(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    network.start_bootstraps()
    server = network.node("server")
    network_id = network.create("server")
    contact = f"{network.node('boot').ipv4}:{BOOTSTRAP_PORT}"
    wrong = ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", "+5h"]
    server.daemon([*wrong, *server.dhtvpn("join", network_id, "--bootstrap", contact)], "join")
    log = server.log_file("join")
    eventually(lambda: "clock" in log.read_text(), f"the warning: {log.read_text()}")
    assert "5" in log.read_text().split("clock", 1)[1]


def test_a_member_that_is_gone_is_named_in_the_timeout(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    join_all(network)
    server = network.node("server")
    network.node("desk").cli("leave")
    eventually(lambda: peer_of(server, "desk")["state"] == "unreachable", "it said goodbye")
    done = server.cli("wait", "--peer", "desk", "--timeout", "1", check=False)
    refused(done, 4, "desk")
