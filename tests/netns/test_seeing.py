"""What a person sees of paths, through real NAT: why, events, ping until direct, graph."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from joined import eventually, overlay, status
from test_relay import cut, join, mend, path, start_volunteer

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.nat_behaviour import PORT_RESTRICTED, SYMMETRIC
from dhtvpn.lab.network import Network
from dhtvpn.lab.topologies import behind_nats
from dhtvpn.lab.topology import Host, Role, Router, Topology

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]

MIXED = Topology(
    "seeing",
    "no direct path between laptop and phone, and one from both to the server",
    hosts=(
        Host("boot", Role.BOOTSTRAP),
        Host("laptop", behind="laptop-home"),
        Host("phone", behind="phone-home"),
        Host("server"),
    ),
    routers=(Router("laptop-home", SYMMETRIC), Router("phone-home", PORT_RESTRICTED)),
)
PAIR = behind_nats("pair-seeing", "a direct path", {"laptop": PORT_RESTRICTED, "phone": PORT_RESTRICTED})


def events(machine: Machine) -> list[dict[str, Any]]:
    listed = machine.cli("events", "--no-follow", "--last", "1000", "--json").stdout
    return [json.loads(line) for line in listed.splitlines()]


def about(machine: Machine, peer: str) -> list[str]:
    words = ("connected", "upgraded", "fallen-back", "path-changed")
    return [each["event"] for each in events(machine) if each.get("peer") == peer and each["event"] in words]


def test_a_relayed_pair_is_explained_and_drawn(lab: Lab) -> None:
    network = lab(MIXED)
    start_volunteer(network, "--relay")
    join(network, "server", "laptop", "phone")
    laptop, server = network.node("laptop"), network.node("server")
    eventually(
        lambda: len(status(laptop)["peers"]) == 2 and path(laptop, "phone") == "relayed", "relayed", 10
    )
    eventually(lambda: path(laptop, "server") == "direct", "direct", 5)

    def codes() -> list[str]:
        return [each["code"] for each in laptop.cli_json("why", "phone")["advice"]]

    eventually(lambda: codes()[:2] == ["port-mapping", "forward-port"], f"advice {codes()}", 20)
    document = laptop.cli_json("why", "phone")
    assert document["own"]["mapping"] == "address-and-port-dependent"
    assert document["theirs"]["filtering"] == "address-and-port-dependent"
    assert document["pairs"] and all(pair["result"] != "succeeded" for pair in document["pairs"])
    assert document["path"]["relay"] and document["changes"]
    text = laptop.cli("why", "phone").stdout
    assert "phone is reached relayed through" in text and "Turn on port mapping" in text

    direct = laptop.cli_json("why", "server")
    assert direct["path"]["path"] == "direct" and direct["advice"] == []
    assert any(pair["nominated"] for pair in direct["pairs"]) or direct["path"]["why"]

    late = laptop.cli("ping", "phone", "--until-direct", "--count", "3", "--interval", "0.2", check=False)
    assert late.returncode == 4 and "relayed through" in late.stdout
    assert laptop.cli("ping", "server", "--until-direct").stdout.count("direct by") == 1

    def edges(machine: Machine) -> dict[frozenset[str], dict[str, Any]]:
        mesh = machine.cli_json("graph")
        names = {node["id"]: node["name"] for node in mesh["nodes"]}
        return {frozenset((names[edge["from"]], names[edge["to"]])): edge for edge in mesh["edges"]}

    eventually(lambda: len(edges(laptop)) == 3, "gossip", 10)
    drawn = edges(laptop)
    assert drawn[frozenset(("laptop", "server"))]["path"] == "direct"
    assert drawn[frozenset(("phone", "server"))] | {"rtt_ms": 0, "from": "", "to": ""} == {
        "from": "",
        "to": "",
        "path": "direct",
        "through": [],
        "rtt_ms": 0,
        "known": "told",
    }
    assert drawn[frozenset(("laptop", "phone"))]["path"] == "relayed"
    eventually(lambda: frozenset(("laptop", "phone")) in edges(server), "the server knows", 10)
    likely = edges(server)[frozenset(("laptop", "phone"))]
    assert (likely["path"], likely["known"]) == ("relayed", "likely")
    assert laptop.cli("graph", "--format", "dot").stdout.count(" -- ") == 3


def test_events_tell_of_the_upgrade_and_the_fall_back_in_order(lab: Lab) -> None:
    network = lab(PAIR)
    start_volunteer(network, "--relay")
    cut(network)
    join(network, "laptop", "phone")
    laptop = network.node("laptop")
    eventually(lambda: status(laptop)["peers"] and path(laptop, "phone") == "relayed", "relayed", 8)
    assert {each["code"] for each in laptop.cli_json("why", "phone")["advice"]} <= {
        "firewall",
        "budget",
        "nat-unknown",
        "ipv6",
        "checking",
    }
    log = laptop.log_file("follow")
    with log.open("w") as output:
        following = laptop.popen(laptop.dhtvpn("events", "--json"), stdout=output)
        mend(network)
        pinged = laptop.cli("ping", "phone", "--until-direct", "--interval", "0.2", "--timeout", "30")
        assert "direct by" in pinged.stdout.splitlines()[-1]
        eventually(lambda: "upgraded" in log.read_text(), "the event", 5)
        eventually(lambda: path(network.node("phone"), "laptop") == "direct", "on both sides", 5)
        traffic = laptop.popen(["ping", "-i", "0.2", overlay(network.node("phone"))[0]])
        cut(network)
        eventually(lambda: path(laptop, "phone") == "relayed", "back on the relay", 10)
        eventually(lambda: "fallen-back" in log.read_text(), "the event", 5)
        for process in (traffic, following):
            process.terminate()
            process.wait()
    followed = [json.loads(line) for line in log.read_text().splitlines()]
    changes = [each for each in followed if each["event"] in ("connected", "upgraded", "fallen-back")]
    assert [each["event"] for each in changes] == ["connected", "upgraded", "fallen-back"]
    assert [each["to"]["path"] for each in changes] == ["relayed", "direct", "relayed"]
    assert about(laptop, "phone") == [each["event"] for each in changes]
    numbers = [each["seq"] for each in followed]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
