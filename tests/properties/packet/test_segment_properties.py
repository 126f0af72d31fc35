"""Cut and joined again: nothing is lost, altered or reordered within a flow, and only likes are joined."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st
from super_packets import ACK, CWR, FIN, PSH, begun, check, from_device, packets_of, parts, tcp, udp
from super_packets import without_identification as plain

from dhtvpn.packet import virtio
from dhtvpn.packet.coalesce import Batch
from dhtvpn.packet.segment import split
from dhtvpn.packet.transport import layout, ones_complement_sum

HOSTS = [("10.1.0.1", "10.1.0.2"), ("fd00::1", "fd00::2")]
options = st.integers(0, 10).map(lambda words: b"\x01" * 4 * words)
super_packets = st.builds(
    lambda hosts, payload, **rest: tcp(*hosts, payload, **rest),
    st.sampled_from(HOSTS),
    st.binary(min_size=1, max_size=300),
    sequence=st.integers(0, (1 << 32) - 1),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN | CWR]),
    options=options,
    tos=st.integers(0, 255),
) | st.builds(
    lambda hosts, payload, **rest: udp(*hosts, payload, **rest),
    st.sampled_from(HOSTS),
    st.binary(min_size=1, max_size=300),
    identification=st.integers(0, 65535),
    fragment=st.sampled_from([0, 0x4000]),
)


@given(super_packets, st.integers(1, 400))
def test_what_is_cut_is_what_a_wire_would_see(packet: bytes, segment: int) -> None:
    shape = layout(packet, 0, len(packet))
    assert shape is not None
    made = split(bytearray(begun(packet)), 0, shape, len(packet), segment)
    expected = packets_of(from_device(packet, segment))
    assert [plain(each) for each in made] == [plain(each) for each in expected]
    for each in made:
        start = 20 if each[0] >> 4 == 4 else 0
        assert ones_complement_sum(each[:start]) == 0


plain_super_packets = st.builds(
    lambda hosts, payload, **rest: tcp(*hosts, payload, **rest),
    st.sampled_from(HOSTS),
    st.binary(min_size=1, max_size=400),
    sequence=st.integers(0, (1 << 32) - 1),
    options=options,
    flags=st.sampled_from([ACK, ACK | PSH]),
)


@given(plain_super_packets, st.integers(1, 100))
def test_joined_is_what_was_cut(packet: bytes, segment: int) -> None:
    payload = packet[parts(packet).length :]
    shape = layout(packet, 0, len(packet))
    assert shape is not None
    batch = Batch()
    for each in split(bytearray(begun(packet)), 0, shape, len(packet), segment):
        assert batch.offer(each)
    written = [b"".join(vector) for vector in batch.take()]
    if len(payload) <= segment:
        assert written == [virtio.NONE + packet]
    elif len(payload) <= segment * 256:
        assert written == [from_device(packet, segment)]


small = st.builds(
    lambda hosts, payload, step, port, **rest: tcp(
        *hosts, payload, sequence=5 * step, ports=(port, 80), **rest
    ),
    st.sampled_from(HOSTS),
    st.sampled_from([b"", b"abcde", b"abcde", b"abcde", b"fgh", b"0123456789"]),
    st.integers(0, 6),
    st.integers(1, 2),
    flags=st.sampled_from([ACK, ACK, ACK, ACK | PSH, ACK | FIN]),
    window=st.sampled_from([1, 1, 1, 2]),
    tos=st.sampled_from([0, 0, 0, 3]),
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Packets of a few flows, mostly in order."""
    packets = draw(st.lists(small, max_size=12))
    for _ in range(draw(st.integers(0, 3))):
        hosts, port = draw(st.sampled_from(HOSTS)), draw(st.integers(1, 2))
        count = draw(st.integers(1, 6))
        run = [tcp(*hosts, b"abcde", sequence=5 * n, ports=(port, 80), window=1) for n in range(count)]
        for each in run:
            packets.insert(draw(st.integers(0, len(packets))) if draw(st.booleans()) else len(packets), each)
    return packets


@given(streams())
def test_nothing_is_lost_altered_or_reordered_within_a_flow(sent: list[bytes]) -> None:
    batch, written = Batch(), []
    for packet in sent:
        if not batch.offer(packet):
            written += [b"".join(vector) for vector in batch.take()]
            written.append(virtio.NONE + packet)
    written += [b"".join(vector) for vector in batch.take()]
    came: dict[bytes, list[bytes]] = defaultdict(list)
    went: dict[bytes, list[bytes]] = defaultdict(list)
    for packet in sent:
        went[flow(packet)].append(packet)
    for each in written:
        check(each)
        for packet in packets_of(each):
            came[flow(packet)].append(packet)
    assert came == went


def flow(packet: bytes) -> bytes:
    at = parts(packet).ip_length
    return packet[at - 8 : at] + packet[at : at + 4]
