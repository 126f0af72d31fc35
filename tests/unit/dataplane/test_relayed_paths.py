"""Two engines with a relay between them: what it sees, what comes out, and who decides on the path."""

import os
from typing import Any

import pytest
from engines_in_memory import Pair, Side, ipv4
from relays_in_memory import BEYOND, ID_A, ID_B, RELAY, VIA, know_relay
from super_packets import from_device, packets_of, tcp

from dhtvpn.dataplane.messages import (
    ControlFrame,
    EndpointRoamed,
    Event,
    HeardElsewhere,
    RemoveVia,
    SendProbe,
    SendTo,
    SetEndpoint,
    SetVia,
)

SECRET = b"nobody on the way may read this"


def relayed_pair(*, trains: bool = False) -> Pair:
    pair = Pair.with_trains() if trains else Pair.make()
    know_relay(pair.a, ID_A, ID_B)
    know_relay(pair.b, ID_B, ID_A)
    for side in (pair.a, pair.b):
        side.engine.handle_command(SetEndpoint(1, BEYOND), 0.0)
    return pair


def carry_by_relay(sender: Side, receiver: Side, identity: bytes) -> list[bytes]:
    """As the volunteer does: runs as they came. Returns everything that it has seen."""
    seen = []
    for run, address in sender.socket.sent:
        assert address == RELAY
        assert all(datagram[:8] == b"\xd9" + identity and datagram[8] in (4, 5) for datagram in run)
        receiver.receive_run(run, source=RELAY)
        seen += run
    sender.socket.sent.clear()
    sender.socket.marks.clear()
    return seen


def of_kind(side: Side, kind: type[Any]) -> list[Event]:
    return [event for event in side.events if isinstance(event, kind)]


def test_packets_go_both_ways_and_the_relay_reads_nothing() -> None:
    pair = relayed_pair()
    there = ipv4(pair.a.address4, pair.b.address4, SECRET)
    back = ipv4(pair.b.address4, pair.a.address4, SECRET)
    pair.a.send(there, there)
    seen = carry_by_relay(pair.a, pair.b, ID_B)
    assert pair.b.take_received() == [there, there]
    pair.b.send(back)
    seen += carry_by_relay(pair.b, pair.a, ID_A)
    assert pair.a.take_received() == [back]
    assert len(seen) == 3
    for datagram in seen:
        assert SECRET not in datagram
        for part in (pair.a.address4.packed, pair.b.address4.packed, pair.a.address6.packed):
            assert part not in datagram[8:]
    assert pair.a.drops() == pair.b.drops() == {}
    assert not of_kind(pair.b, EndpointRoamed) and not of_kind(pair.b, HeardElsewhere)


@pytest.mark.parametrize("size", [500, 9000, 60_000])
def test_trains_go_through_a_relay_in_runs(size: int) -> None:
    pair = relayed_pair(trains=True)
    packet = tcp(pair.a.address4, pair.b.address4, os.urandom(size))
    pair.a.send(from_device(packet, 1000 if size > 1000 else 0))
    assert len(pair.a.socket.sent) <= 2
    carry_by_relay(pair.a, pair.b, ID_B)
    written = pair.b.take_received()
    assert len(written) == 1
    payload = b"".join(part[40:] for part in packets_of(written[0]))
    assert payload == packet[40:]


def test_a_probe_is_as_long_as_it_is_and_the_header_comes_on_top() -> None:
    pair = relayed_pair()
    pair.a.engine.handle_command(SendProbe(1, b"\x05\x00\x08probeprobe".ljust(1200, b"\0")), 0.0)
    ((run, address),) = pair.a.socket.sent
    assert address == RELAY and [len(datagram) for datagram in run] == [8 + 32 + 1200]


def test_what_is_not_for_us_or_from_no_relay_of_ours_is_dropped() -> None:
    pair = relayed_pair()
    pair.a.send(ipv4(pair.a.address4, pair.b.address4))
    (datagram,) = pair.a.take_sent()
    pair.b.receive(datagram, source=("203.0.113.7", 4690))
    pair.b.receive(b"\xd9" + b"zzzzzzz" + datagram[8:], source=RELAY)
    pair.b.receive(datagram[:8], b"\xd9", datagram[:20], source=RELAY)
    assert pair.b.take_received() == []
    assert pair.b.drops()["dataplane.relay_unknown"] == 1
    assert pair.b.drops()["dataplane.relay_not_for_us"] >= 1
    pair.b.receive(datagram, source=RELAY)
    assert len(pair.b.take_received()) == 1


def test_a_relay_does_not_lead_away_from_a_direct_path() -> None:
    pair = relayed_pair()
    pair.b.engine.handle_command(SetEndpoint(1, pair.a.endpoint), 0.0)
    for _ in range(5):
        pair.a.send(ipv4(pair.a.address4, pair.b.address4))
        carry_by_relay(pair.a, pair.b, ID_B)
    assert of_kind(pair.b, HeardElsewhere) == [HeardElsewhere(1, BEYOND)]
    assert not of_kind(pair.b, EndpointRoamed)
    pair.b.send(ipv4(pair.b.address4, pair.a.address4))
    assert pair.b.socket.sent[-1][1] == pair.a.endpoint


def test_a_direct_message_does_not_lead_away_from_a_relay() -> None:
    """The control process pings first."""
    pair = relayed_pair()
    pair.a.engine.handle_command(SetEndpoint(1, pair.b.endpoint), 0.0)
    pair.a.send(ipv4(pair.a.address4, pair.b.address4))
    pair.b.receive(*pair.a.take_sent(), source=pair.a.endpoint)
    assert len(pair.b.take_received()) == 1
    assert of_kind(pair.b, HeardElsewhere) == [HeardElsewhere(1, pair.a.endpoint)]
    pair.b.send(ipv4(pair.b.address4, pair.a.address4))
    assert pair.b.socket.sent[-1][1] == RELAY


def test_what_strays_is_counted_apart() -> None:
    pair = relayed_pair()
    pair.b.engine.handle_command(SetEndpoint(1, pair.a.endpoint), 0.0)
    pair.a.send(ipv4(pair.a.address4, pair.b.address4))
    (datagram,) = carry_by_relay(pair.a, pair.b, ID_B)
    pair.b.engine.handle_timeout(10.0)
    (activity,) = [event for event in pair.b.events if type(event).__name__ == "Activity"][-1:]
    assert activity.strayed_bytes == activity.rx_bytes == len(datagram) - 8  # type: ignore[union-attr]


def test_an_answer_goes_by_the_path_that_is_named() -> None:
    pair = relayed_pair()
    frame = b"\x02\x00\x08tokentok"
    pair.a.engine.handle_command(SendTo(1, pair.b.endpoint, frame), 0.0)
    ((run, address),) = pair.a.socket.sent
    assert address == pair.b.endpoint
    pair.b.receive(*run, source=pair.a.endpoint)
    (heard,) = of_kind(pair.b, ControlFrame)
    assert isinstance(heard, ControlFrame) and heard.source == pair.a.endpoint
    pair.a.send(ipv4(pair.a.address4, pair.b.address4))
    ((run, address),) = pair.a.socket.sent[1:]
    assert address == RELAY and run[0].startswith(b"\xd9" + ID_B)
    pair.a.engine.handle_command(SetEndpoint(1, pair.b.endpoint), 0.0)
    pair.a.engine.handle_command(SendTo(1, BEYOND, frame), 0.0)
    pair.a.send(ipv4(pair.a.address4, pair.b.address4))
    assert pair.a.socket.sent[-2][0][0].startswith(b"\xd9" + ID_B)
    assert pair.a.socket.sent[-1][0][0].startswith(b"\x04") and pair.a.socket.sent[-1][1] == pair.b.endpoint


def test_a_relay_that_is_gone_leads_nowhere() -> None:
    pair = relayed_pair()
    pair.a.engine.handle_command(RemoveVia(VIA), 0.0)
    pair.a.send(ipv4(pair.a.address4, pair.b.address4))
    assert pair.a.take_sent() == [] and pair.a.drops() == {"dataplane.no_endpoint": 1}
    pair.a.engine.handle_command(SetEndpoint(1, pair.b.endpoint), 0.0)
    pair.a.send(ipv4(pair.a.address4, pair.b.address4))
    assert len(pair.a.take_sent()) == 1


def test_the_first_message_of_a_peer_without_an_endpoint_tells_the_way_back() -> None:
    pair = relayed_pair()
    pair.b.engine.handle_command(RemoveVia(VIA), 0.0)
    pair.b.engine.handle_command(SetVia(VIA, RELAY, None), 0.0)
    pair.a.send(ipv4(pair.a.address4, pair.b.address4))
    carry_by_relay(pair.a, pair.b, ID_B)
    assert of_kind(pair.b, EndpointRoamed) == [EndpointRoamed(1, BEYOND)]
    pair.b.send(ipv4(pair.b.address4, pair.a.address4))
    assert pair.b.socket.sent[-1][1] == RELAY


def test_nobody_is_answered_in_the_range_that_stands_for_relays() -> None:
    pair = relayed_pair()
    pair.b.engine.handle_command(SetEndpoint(1, pair.a.endpoint), 0.0)
    pair.a.engine.handle_command(SetEndpoint(1, pair.b.endpoint), 0.0)
    pair.a.send(ipv4(pair.a.address4, pair.b.address4))
    pair.b.receive(*pair.a.take_sent(), source=(BEYOND.host, 1, 0, 0))
    assert pair.b.take_received() == [] and pair.b.drops() == {"dataplane.source_port": 1}
