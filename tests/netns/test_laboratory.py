"""The laboratory itself: what it builds works, and whatever happens to it, nothing is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dhtvpn.errors import DhtVpnError, SystemRefusedError, TimedOutError, UsageError
from dhtvpn.lab import clean, measure, namespaces, register, topologies
from dhtvpn.lab.network import Network
from dhtvpn.lab.register import Entry
from dhtvpn.lab.topology import Host, Role, Router, Topology

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("laboratory_possible")]

LabFactory = Callable[[Topology], Network]

PLAIN_PAIR = Topology(
    "plain-pair",
    "two public hosts and one behind a router, nothing running on them",
    hosts=(Host("left", Role.PLAIN), Host("right", Role.PLAIN), Host("inner", Role.PLAIN, behind="home")),
    routers=(Router("home"),),
)


def left_of(entry: Entry) -> list[str]:
    """Namespaces and files of a laboratory that should be gone."""
    own = [name for name in namespaces.all_of_ours() if name.startswith(entry.prefix)]
    return own + ([str(entry.directory)] if entry.directory.exists() else [])


def own_network() -> list[str]:
    """Links, addresses, routes and rules of the machine's own namespace."""
    parts = ("link", "address", "route", "-6 route", "rule")
    shown = [namespaces.command(["ip", "-o", *part.split(), "show"]) for part in parts]
    # Counters of address lifetimes go down by themselves.
    return [
        " ".join(w for w in line.split() if not w.endswith("sec"))
        for text in shown
        for line in text.splitlines()
    ]


def test_the_machines_own_network_is_left_alone(lab: LabFactory) -> None:
    before = own_network()
    network = lab(topologies.IPV6_ONLY)
    assert own_network() == before
    network.tear_down()
    assert own_network() == before


@pytest.mark.parametrize("topology", [topologies.DEMO, topologies.IPV6_ONLY, topologies.SAME_LAN])
def test_every_host_reaches_every_public_one(topology: Topology, lab: LabFactory) -> None:
    network = lab(topology)
    public = [host for host in topology.hosts if host.behind is None]
    for host in topology.hosts:
        for target in public:
            machine, other = network.node(host.name), network.node(target.name)
            if host.ipv4 and target.ipv4:
                assert measure.answers(machine, str(other.ipv4)), (host.name, target.name)
            if host.ipv6 and target.ipv6:
                assert measure.answers(machine, str(other.ipv6)), (host.name, target.name)


def test_nobody_reaches_a_lan_from_outside(lab: LabFactory) -> None:
    network = lab(PLAIN_PAIR)
    assert not measure.answers(network.node("left"), str(network.node("inner").ipv4), patience_s=1)


def test_the_measures_on_a_plain_link(lab: LabFactory) -> None:
    network = lab(PLAIN_PAIR)
    left, right = network.node("left"), network.node("right")
    reply = measure.first_reply(left, str(right.ipv4), time.monotonic(), 5.0, threading.Event())
    assert reply is not None
    assert reply < 1.0
    assert measure.first_reply(left, "198.18.99.2", time.monotonic(), 0.2, threading.Event()) is None
    rtt = measure.round_trip_ms(left, str(right.ipv4))
    assert rtt is not None
    assert rtt < 100
    assert measure.round_trip_ms(left, "198.18.99.2", count=1) is None
    speed = measure.tcp_mbit_s(left, right, str(right.ipv4), 1)
    assert speed is not None
    assert speed > 10
    assert measure.tcp_mbit_s(left, right, "198.18.99.2", 1) is None
    assert right.processes() == []


def test_first_reply_sees_an_address_that_appears_later(lab: LabFactory) -> None:
    """As an overlay address does, and to the precision that the figures claim."""
    network = lab(PLAIN_PAIR)
    left, right = network.node("left"), network.node("right")
    started = time.monotonic()
    replies: list[float | None] = []

    def wait() -> None:
        replies.append(measure.first_reply(left, "10.1.2.3", started, 10.0, threading.Event()))

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.7)  # not to wait for something: this is the delay that shall be measured
    namespaces.ip_batch(right.namespace, ["address add 10.1.2.3/32 dev lo"])
    namespaces.ip_batch(network.node("internet").namespace, [f"route add 10.1.2.3 via {right.ipv4}"])
    appeared = time.monotonic() - started
    waiter.join()
    assert replies[0] is not None
    assert 0 <= replies[0] - appeared + 0.02 < 0.3


def test_commands_run_inside_and_fail_with_a_sentence(lab: LabFactory) -> None:
    left = lab(PLAIN_PAIR).node("left")
    assert left.interfaces() == ["lo", "eth0"]
    assert left.run(["cat"], stdin="words").stdout == "words"
    with pytest.raises(DhtVpnError, match=r"left: sh -c exit 3 failed \(3\)"):
        left.run(["sh", "-c", "exit 3"])
    assert left.run(["sh", "-c", "exit 3"], check=False).returncode == 3
    with pytest.raises(TimedOutError, match="did not end in 0 s"):
        left.run(["sleep", "60"], timeout_s=0.1)
    with left.socket() as inside:
        inside.bind((str(left.ipv4), 41234))
        assert 41234 in left.bound_ports("udp")
    assert 41234 not in left.bound_ports("udp")
    with pytest.raises(SystemRefusedError, match="cannot open a socket"):
        namespaces.open_socket("dvl-none-such", 2, 2)


def test_unknown_machines_are_refused(lab: LabFactory) -> None:
    with pytest.raises(UsageError, match="no machine nobody"):
        lab(PLAIN_PAIR).node("nobody")


def test_kill_all_ends_even_what_has_detached(lab: LabFactory) -> None:
    network = lab(PLAIN_PAIR)
    left, right = network.node("left"), network.node("right")
    left.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &"])
    stays = right.popen(["sleep", "600"])
    assert len(left.processes()) == 1
    left.popen(["sleep", "600"])
    assert len(left.kill_all()) == 2
    assert left.processes() == []
    assert stays.poll() is None


def test_an_exception_leaves_nothing() -> None:
    entries: list[Entry] = []

    def fail() -> None:
        with Network(PLAIN_PAIR) as network:
            entries.append(network.entry)
            network.node("left").popen(["sleep", "600"])
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        fail()
    assert left_of(entries[0]) == []


def test_what_was_started_a_moment_ago_is_ended_too() -> None:
    """``ip netns exec`` takes a while to enter: whoever only looks through the namespace misses it."""
    for _ in range(10):
        with Network(PLAIN_PAIR) as network:
            children = [network.node("left").popen(["sleep", "600"]) for _ in range(8)]
        assert all(child.returncode is not None for child in children)
        assert left_of(network.entry) == []


def test_a_failure_while_building_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {entry.tag for entry in register.entries()}
    monkeypatch.setattr("dhtvpn.lab.nft.router_rules", lambda nat, wan, lan: "nonsense")
    with pytest.raises(SystemRefusedError, match="nft"):
        Network(PLAIN_PAIR)
    started = [
        entry for entry in register.entries() if entry.tag not in before and entry.owner == os.getpid()
    ]
    assert started == []


def test_a_process_that_ignores_sigterm_is_ended() -> None:
    with Network(PLAIN_PAIR) as network:
        stubborn = network.node("left").popen(
            ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=subprocess.PIPE
        )
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == "ready\n"
        entry = network.entry
        assert namespaces.end_processes([network.node("left").namespace], patience_s=0.2)
    assert left_of(entry) == []


OWNER = """
    import signal, sys, time
    from dhtvpn.lab import topologies
    from dhtvpn.lab.network import Network
    from dhtvpn.cli.lab_session import ending_on_signals
    with ending_on_signals(), Network(topologies.PAIR) as network:
        network.node("laptop").run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &"])
        if "keep" in sys.argv:
            network.keep()
        else:
            print(network.entry.tag, flush=True)
            time.sleep(600)
    print(network.entry.tag, flush=True)
"""


@pytest.fixture
def start_owner(laboratory_possible: None) -> Iterator[Callable[..., tuple[subprocess.Popen[str], Entry]]]:
    """A laboratory that another process owns, and its entry once it is up."""
    owners: list[subprocess.Popen[str]] = []
    tags: list[str] = []

    def start(*words: str) -> tuple[subprocess.Popen[str], Entry]:
        owner = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(OWNER), *words], stdout=subprocess.PIPE, text=True
        )
        owners.append(owner)
        assert owner.stdout is not None
        tags.append(owner.stdout.readline().strip())
        return owner, entry_of(tags[-1])

    yield start
    for owner in owners:
        owner.kill()
        owner.wait()
        assert owner.stdout is not None
        owner.stdout.close()
    for entry in register.entries():
        if entry.tag in tags:
            clean.remove_laboratory(entry)


def entry_of(tag: str) -> Entry:
    return next(entry for entry in register.entries() if entry.tag == tag)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(
    number: signal.Signals, start_owner: Callable[..., tuple[subprocess.Popen[str], Entry]]
) -> None:
    owner, entry = start_owner()
    assert entry.state == "running"
    assert len(left_of(entry)) == 7
    owner.send_signal(number)
    time.sleep(0.05)
    owner.send_signal(number)  # an impatient second one does not stop the cleaning
    assert owner.wait(timeout=20) != 0
    assert left_of(entry) == []


def test_clean_removes_what_a_killed_owner_left(
    start_owner: Callable[..., tuple[subprocess.Popen[str], Entry]],
) -> None:
    owner, entry = start_owner()
    assert entry not in clean.removable()
    owner.kill()
    owner.wait()
    left = entry_of(entry.tag)
    assert left.state == "abandoned"
    assert left in clean.removable()
    assert len(clean.remove_laboratory(left)) == 1
    assert left_of(entry) == []


def test_a_kept_laboratory_stays_until_it_is_cleaned(
    start_owner: Callable[..., tuple[subprocess.Popen[str], Entry]],
) -> None:
    owner, _ = start_owner("keep")
    owner.wait()
    entry = next(entry for entry in register.entries() if entry.owner == owner.pid)
    assert entry.state == "kept"
    assert namespaces.processes_in([f"{entry.prefix}laptop"])
    assert entry in clean.removable()
    clean.remove_laboratory(entry)
    assert left_of(entry) == []


def test_namespaces_without_an_entry_are_found(tmp_path: Path, lab: LabFactory) -> None:
    network = lab(PLAIN_PAIR)
    assert network.node("left").namespace not in clean.orphaned_namespaces()
    register_directory = tmp_path / "wiped"
    assert network.node("left").namespace in clean.orphaned_namespaces(register_directory)
    clean.remove_orphans([machine.namespace for machine in network.machines])
    assert [name for name in namespaces.all_of_ours() if name.startswith(network.entry.prefix)] == []
