"""A train as docs/protocol/trains.md shows it, byte by byte: made and put together again."""

import json
from pathlib import Path

import pytest
from engines_in_memory import Pair
from super_packets import from_device, packets_of, tcp, udp
from super_packets import without_identification as plain

VECTORS = json.loads(Path(__file__).with_name("trains.json").read_text())
HOSTS = {4: ("10.1.0.1", "10.1.0.2"), 6: ("fd00::1", "fd00::2")}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_super_packet_is_what_it_says(vector: dict[str, object]) -> None:
    """By the builders of the tests, which know nothing of trains."""
    hosts = HOSTS[vector["ip_version"]]  # type: ignore[index]
    payload = bytes.fromhex(vector["payload"])  # type: ignore[arg-type]
    if vector["protocol"] == "tcp":
        packet = tcp(*hosts, payload, sequence=vector["sequence"], flags=vector["flags"])  # type: ignore[arg-type]
    else:
        packet = udp(*hosts, payload)
    assert from_device(packet, vector["segment"])[10:].hex() == vector["super_packet"]  # type: ignore[arg-type]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_train_leaves_and_arrives(vector: dict[str, object]) -> None:
    pair = Pair.with_trains()
    session = pair.a.engine._peers.by_number[1].transport._slots.current
    assert session is not None
    session.counter = vector["first_counter"]  # type: ignore[assignment]
    given = from_device(
        packets_of(bytes(10) + bytes.fromhex(vector["super_packet"]))[0],  # type: ignore[arg-type]
        vector["segment"],  # type: ignore[arg-type]
    )
    pair.a.send(given)
    sent = pair.a.take_sent()
    transport = Pair.with_trains().b.engine._peers.by_number[1].transport
    assert [transport.open(datagram, 0.0).hex() for datagram in sent] == vector["plaintexts"]
    pair.b.receive_run(sent, source=("192.0.2.1", 4001))
    assert pair.b.take_received() == [given]
    for datagram, packet in zip(sent, vector["packets"], strict=True):  # type: ignore[arg-type]
        alone = Pair.with_trains()
        alone.b.receive(datagram, source=("192.0.2.1", 4001))
        (written,) = alone.b.take_received()
        assert [plain(each).hex() for each in packets_of(written)] == [plain(bytes.fromhex(packet)).hex()]
