"""Blocks over a link that loses, repeats, reorders, cuts and corrupts, and from a member that seals nonsense.

What the receiving machine gets is compared with what the sending one had (tests/super_packets.py).
"""

import struct
from collections import Counter

from engines_in_memory import INDEX_B, Pair
from hypothesis import given, settings
from hypothesis import strategies as st
from super_packets import ACK, CWR, FIN, PSH, begun, check, from_device, tcp, udp

from dhtvpn.dataplane.block_receiver import MAX_BLOCK, MAX_KEPT
from dhtvpn.dataplane.messages import SetPathMtu
from dhtvpn.packet.ip import addresses
from dhtvpn.wireguard.transport import HEADER, NONCE

HOSTS = [("10.1.0.1", "10.1.0.2"), ("fd00::1", "fd00::2")]
HOME = ("192.0.2.1", 4001)
ALLOWED = {bytes([10, 1, 0, 1]), bytes.fromhex("fd" + 28 * "0" + "01")}
LOCAL = {bytes([10, 1, 0, 2]), bytes.fromhex("fd" + 28 * "0" + "02")}

words = st.integers(0, 10).map(lambda count: b"\x01" * 4 * count)
payloads = st.integers(201, 3000).map(lambda size: bytes(n * n % 251 for n in range(size)))
segments = st.integers(50, 200)
super_packets = st.builds(
    lambda hosts, payload, segment, **rest: from_device(tcp(*hosts, payload, **rest), segment),
    st.sampled_from(HOSTS),
    payloads,
    segments,
    ip_options=words,
    options=words,
    sequence=st.integers(0, (1 << 32) - 1),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | FIN | PSH, ACK | PSH | CWR]),
) | st.builds(
    lambda hosts, payload, segment: from_device(udp(*hosts, payload), segment),
    st.sampled_from(HOSTS),
    payloads,
    segments,
)


def make_pair(aes: bool, mtu: int) -> Pair:
    pair = Pair.with_blocks(aes=aes)
    pair.a.engine.handle_command(SetPathMtu(1, mtu), 0.0)
    return pair


@st.composite
def journeys(draw: st.DrawFn, count: int) -> list[tuple[int, str, int]]:
    """What a link does to ``count`` datagrams: the order in which they come, and what becomes of each."""
    order = list(range(count))
    for _ in range(draw(st.integers(0, 6))):
        at, to = draw(st.integers(0, count - 1)), draw(st.integers(0, count - 1))
        order.insert(to, order.pop(at))
    fates = {
        draw(st.integers(0, count - 1)): draw(st.sampled_from(["lose", "repeat", "cut", "corrupt"]))
        for _ in range(draw(st.integers(0, 3)))
    }
    return [(number, fates.get(number, ""), draw(st.integers(0, 10_000))) for number in order]


def travel(datagrams: list[bytes], journey: list[tuple[int, str, int]]) -> list[bytes]:
    arriving = []
    for number, fate, chance in journey:
        datagram = datagrams[number]
        if fate == "cut":
            datagram = datagram[: chance % len(datagram)]
        elif fate == "corrupt":
            bad = bytearray(datagram)
            bad[chance % len(bad)] ^= 1 << chance % 8
            datagram = bytes(bad)
        arriving += [datagram] * {"lose": 0, "repeat": 2}.get(fate, 1)
    return arriving


def runs_of(datagrams: list[bytes], cuts: set[int]) -> list[list[bytes]]:
    """As UDP_GRO makes them: equal lengths, and one shorter at the end; sometimes cut."""
    runs: list[list[bytes]] = []
    for number, each in enumerate(datagrams):
        joins = runs and len(runs[-1][-1]) == len(runs[-1][0]) >= len(each) > 0
        if joins and number not in cuts:
            runs[-1].append(each)
        else:
            runs.append([each])
    return runs


@settings(max_examples=250)
@given(st.data(), st.lists(super_packets, min_size=1, max_size=4), st.booleans(), st.integers(340, 1000))
def test_any_link(data: st.DataObject, sent: list[bytes], aes: bool, mtu: int) -> None:
    """Whole blocks are delivered once, and nothing else is; what is kept stays within its bounds."""
    pair = make_pair(aes, mtu)
    blocks: list[tuple[bytes, list[bytes]]] = []
    for packet in sent:
        pair.a.send(packet)
        blocks.append((packet, pair.a.take_sent()))
    datagrams = [datagram for _, block in blocks for datagram in block]
    assert {datagram[0] for datagram in datagrams} == {7 if aes else 6}
    arriving = travel(datagrams, data.draw(journeys(len(datagrams))))
    cuts = data.draw(st.sets(st.integers(0, len(arriving)), max_size=4))
    for run in runs_of(arriving, cuts):
        pair.b.receive_run(run, source=HOME)
    came = Counter(pair.b.take_received())
    whole = Counter(packet for packet, block in blocks if set(block) <= set(arriving))
    assert came <= Counter(packet for packet, _ in blocks)
    undisturbed = all(datagram in datagrams for datagram in arriving)
    in_order = [each for each in datagrams if each in arriving] == list(dict.fromkeys(arriving))
    if undisturbed and in_order:
        assert came == whole
    kept = pair.b.engine._inbound._blocks._kept
    assert len(kept) <= MAX_KEPT
    assert all(block.octets <= MAX_BLOCK for block in kept.values())


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """What a block holds, with headers changed anywhere, with bytes behind it or cut."""
    make = draw(st.sampled_from([tcp, udp]))
    hosts = draw(st.sampled_from([*HOSTS, ("10.1.0.3", "10.1.0.2"), ("fd00::1", "ff02::1")]))
    packet = bytearray(draw(st.sampled_from([begun, bytes]))(make(*hosts, bytes(draw(st.integers(0, 300))))))
    for _ in range(draw(st.integers(0, 3))):
        packet[draw(st.integers(0, min(len(packet), 60) - 1))] = draw(st.integers(0, 255))
    packet += bytes(draw(st.sampled_from([0, 0, 3, 16])))
    cut = draw(st.sampled_from([len(packet), len(packet), 39, 24, 1, 0]))
    return struct.pack("<H", draw(st.sampled_from([0, 1, 7, 100, 1448, 65535]))) + bytes(packet[:cut])


@settings(max_examples=250)
@given(st.lists(st.tuples(contents(), st.integers(20, 400)), max_size=5), st.integers(0, 3))
def test_a_member_that_seals_what_it_likes(sealed: list[tuple[bytes, int]], mark: int) -> None:
    pair = Pair.with_blocks()
    session = pair.a.engine._peers.by_number[1].transport._slots.current
    assert session is not None
    for plaintext, chunk in sealed:
        counter = session.reserve(1)
        assert counter is not None
        header = HEADER.pack(6, INDEX_B, counter)
        whole = bytearray(len(plaintext) + 16)
        session.seal_into[6](NONCE.pack(counter), plaintext, header, whole)
        pieces = [bytes(whole[at : at + chunk]) for at in range(0, len(whole), chunk)]
        heads = [header + struct.pack("<HH", place, len(pieces)) for place in range(len(pieces))]
        pair.b.receive_run(
            [head + piece for head, piece in zip(heads, pieces, strict=True)], mark, source=HOME
        )
    for written in pair.b.take_received():
        length, source, destination = addresses(written[10:])
        assert length == len(written) - 10
        assert source in ALLOWED
        assert destination in LOCAL
        check(written)


@given(st.lists(st.binary(max_size=100), max_size=6), st.integers(1, 200))
def test_strangers_change_nothing(datagrams: list[bytes], stride: int) -> None:
    pair = Pair.with_blocks()
    for kind in (6, 7):
        prefix = bytes([kind, 0, 0, 0]) + INDEX_B.to_bytes(4, "little")
        for datagram in datagrams:
            for data in (bytes([kind]) + datagram, prefix + datagram):
                pair.b.socket.arrived.append((data, stride, ("203.0.113.9", 1)))
    pair.b.receive()
    assert pair.b.take_received() == []
    assert pair.b.engine._peers.by_number[1].address == HOME
