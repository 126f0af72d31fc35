"""ECN through two engines (RFC 6040): copied going in, carried over coming out."""

import pytest
from engines_in_memory import Pair
from super_packets import from_device, packets_of, tcp, udp

from dhtvpn.packet import virtio
from dhtvpn.packet.checksum import internet_checksum

FAMILIES = [("10.1.0.1", "10.1.0.2"), ("fd00::1", "fd00::2")]
NOT_ECT, ECT_1, ECT_0, CE = range(4)
TABLE = {  # inner: by outer Not-ECT, ECT(1), ECT(0), CE
    NOT_ECT: (NOT_ECT, NOT_ECT, NOT_ECT, None),
    ECT_1: (ECT_1, ECT_1, ECT_1, CE),
    ECT_0: (ECT_0, ECT_1, ECT_0, CE),
    CE: (CE, CE, CE, CE),
}


def marks_of(written: bytes) -> set[int]:
    found = set()
    for packet in packets_of(written):
        if packet[0] >> 4 == 4:
            assert internet_checksum(packet[: (packet[0] & 15) * 4]) == 0
            assert packet[1] >> 2 == 10
            found.add(packet[1] & 3)
        else:
            assert (packet[0] & 15) << 4 | packet[1] >> 4 == 40 | packet[1] >> 4 & 3
            found.add(packet[1] >> 4 & 3)
    return found


@pytest.mark.parametrize("inner", [NOT_ECT, ECT_1, ECT_0, CE])
@pytest.mark.parametrize("hosts", FAMILIES)
@pytest.mark.parametrize("kind", ["train", "split", "begun", "plain"])
def test_the_outer_header_copies_the_inner_one(inner: int, hosts: tuple[str, str], kind: str) -> None:
    pair = Pair.with_trains() if kind in ("train", "begun") else Pair.make(vnet=(True, True))
    packet = tcp(*hosts, bytes(3500), tos=40 | inner)
    small = udp(*hosts, b"x", tos=40 | inner)
    given = {"plain": virtio.NONE + small, "begun": from_device(small)}.get(kind, from_device(packet, 1000))
    pair.a.send(given)
    assert {mark for _, mark in pair.a.take_runs()} == {inner}


@pytest.mark.parametrize("outer", [NOT_ECT, ECT_1, ECT_0, CE])
@pytest.mark.parametrize("inner", [NOT_ECT, ECT_1, ECT_0, CE])
@pytest.mark.parametrize("hosts", FAMILIES)
@pytest.mark.parametrize("kind", ["train", "split", "begun", "plain"])
def test_what_leaves_is_what_rfc_6040_says(outer: int, inner: int, hosts: tuple[str, str], kind: str) -> None:
    pair = Pair.with_trains() if kind in ("train", "begun") else Pair.make(vnet=(True, True))
    packet = tcp(*hosts, bytes(3500), tos=40 | inner)
    small = udp(*hosts, b"x", tos=40 | inner)
    given = {"plain": virtio.NONE + small, "begun": from_device(small)}.get(kind, from_device(packet, 1000))
    pair.a.send(given)
    pair.carry_runs(outer)
    left = TABLE[inner][outer]
    received = pair.b.take_received()
    if left is None:
        assert received == []
        assert set(pair.b.drops()) == {"dataplane.ecn"}
        return
    assert set.union(*map(marks_of, received)) == {left}
    assert sum(len(packets_of(each)) for each in received) == (4 if kind in ("train", "split") else 1)


def test_frames_and_keepalives_are_not_marked() -> None:
    pair = Pair.with_trains()
    for plaintext in (b"", b"\x02\x00\x08" + bytes(8)):
        pair.a.engine._outbound.send_plaintext(pair.a.engine._peers.by_number[1], plaintext, 0.0)
    assert [mark for _, mark in pair.a.take_runs()] == [NOT_ECT, NOT_ECT]
