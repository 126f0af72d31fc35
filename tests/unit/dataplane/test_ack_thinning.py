"""Which acknowledgements leave, and in which order with what else their connection sends."""

import pytest
from engines_in_memory import Pair
from super_packets import ACK, ECE, FIN, PSH, from_device, packets_of, tcp
from super_packets import without_identification as plain

from dhtvpn.dataplane.ack_thinning import MAX_FLOWS, AckThinning
from dhtvpn.packet import virtio

HOSTS = [("10.1.0.1", "10.1.0.2"), ("fd00::1", "fd00::2")]
TIMESTAMP = b"\x01\x01\x08\x0a12345678"


def ack(number: int, hosts: tuple[str, str] = HOSTS[0], **changes: object) -> bytes:
    return tcp(*hosts, acknowledgement=number & 0xFFFFFFFF, **changes)  # type: ignore[arg-type]


def arrived(*packets: bytes) -> list[bytes]:
    """What arrives when ``packets`` wait together at the device."""
    pair = Pair.with_trains()
    pair.a.engine._outbound._quiet = False
    pair.a.send(*(from_device(packet, 1000) for packet in packets))
    pair.carry_runs()
    return [plain(packet) for each in pair.b.take_received() for packet in packets_of(each)]


@pytest.mark.parametrize("hosts", HOSTS)
@pytest.mark.parametrize("options", [b"", TIMESTAMP])
@pytest.mark.parametrize("first", [1000, 0xFFFFFFF0])
def test_of_those_that_acknowledge_more_the_newest_leaves(
    hosts: tuple[str, str], options: bytes, first: int
) -> None:
    packets = [ack(first + n * 100, hosts, options=options) for n in range(4)]
    assert arrived(*packets) == [plain(packets[-1])]


@pytest.mark.parametrize(
    "changes",
    [
        {"acknowledgement": 1000},  # a duplicate
        {"acknowledgement": 900},
        {"acknowledgement": 1100, "flags": ACK | ECE},
        {"acknowledgement": 1100, "flags": ACK | FIN},
        {"acknowledgement": 1100, "options": b"\x01\x01\x05\x0a12345678"},  # SACK
        {"acknowledgement": 1000, "payload": b"data", "flags": ACK | PSH},
        {"acknowledgement": 1000, "payload": bytes(3000)},
        {"acknowledgement": 1000, "ip_options": b"\x01" * 4},
        {"acknowledgement": 1100, "ports": (1, 2)},
    ],
)
def test_signals_of_their_own_all_leave_in_order(changes: dict[str, object]) -> None:
    first, second = ack(1000), tcp(*HOSTS[0], **changes)  # type: ignore[arg-type]
    other = [plain(packet) for packet in packets_of(from_device(second, 1000))]
    came = arrived(first, second)
    if changes.get("flags") in (ACK | ECE, ACK | FIN) or "options" in changes:
        assert came == other  # it acknowledges more
    elif "ip_options" in changes:
        assert sorted(came) == sorted([plain(first), *other])
    else:
        assert came == [plain(first), *other]


def test_data_that_acknowledges_more_makes_the_one_before_it_superfluous() -> None:
    data = ack(1100, payload=b"data")
    after = ack(1200)
    assert arrived(ack(1000), data, after) == [plain(data), plain(after)]


def test_connections_are_kept_apart_and_capped() -> None:
    thinning = AckThinning()
    for port in range(MAX_FLOWS):
        packet = bytearray(virtio.NONE + ack(1, ports=(port, 80)))
        assert thinning.hold(packet, len(packet)) == b""
    packet = bytearray(virtio.NONE + ack(1, ports=(9999, 80)))
    assert thinning.hold(packet, len(packet)) is None
    assert len(thinning.take()) == MAX_FLOWS
    assert not thinning


def test_stale_bytes_behind_a_short_packet_say_nothing() -> None:
    thinning = AckThinning()
    packet = bytearray(virtio.NONE + ack(1))
    assert thinning.hold(packet, len(packet)) == b""
    for end in range(11, len(packet)):
        assert thinning.hold(packet, end) is None
        assert thinning.release(packet, end) == b""
    assert thinning.take() == [bytes(packet)]
