"""Random and altered bytes never raise anything but DecodeError, and answers are always right packets."""

from engines_in_memory import ipv4, ipv6
from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.errors import DecodeError
from dhtvpn.packet import icmp
from dhtvpn.packet.checksum import internet_checksum, ipv6_pseudo_header_sum
from dhtvpn.packet.ip import IpHeader, addresses, parse

bodies = st.binary(max_size=200)
numbers = st.integers(0, 255)
packets_v4 = st.builds(
    ipv4,
    st.ip_addresses(v=4),
    st.ip_addresses(v=4),
    bodies,
    protocol=numbers,
    flags=st.sampled_from([0, 0x4000, 0x2000, 0x2001]),
)
packets_v6 = st.builds(
    ipv6,
    st.ip_addresses(v=6),
    st.ip_addresses(v=6),
    bodies,
    next_header=st.sampled_from([0, 6, 17, 43, 44, 51, 58, 60, 255]),
)
packets = packets_v4 | packets_v6


@st.composite
def altered(draw: st.DrawFn) -> bytes:
    """A packet with some bytes changed, perhaps cut, perhaps with more behind it."""
    packet = bytearray(draw(packets))
    for _ in range(draw(st.integers(0, 4))):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(numbers)
    return bytes(packet[: draw(st.integers(0, len(packet)))]) + draw(st.binary(max_size=20))


untrusted = st.binary(max_size=120) | altered()


@given(untrusted)
def test_what_is_read_lies_inside(data: bytes) -> None:
    try:
        length, source, destination = addresses(data)
    except DecodeError:
        return
    assert 20 <= length <= len(data)
    assert len(source) == len(destination) == (4 if data[0] >> 4 == 4 else 16)
    try:
        header = parse(data)
    except DecodeError:
        return
    assert isinstance(header, IpHeader)
    assert (header.total_length, header.source, header.destination) == (length, source, destination)
    assert header.payload_offset <= length


@given(untrusted)
def test_every_answer_is_a_packet_back_to_the_sender(data: bytes) -> None:
    answer = icmp.unreachable(data)
    if answer is None:
        return
    question, header = parse(data), parse(answer)
    assert (header.source, header.destination) == (question.destination, question.source)
    assert header.total_length == len(answer) <= 1280
    if header.version == 4:
        assert internet_checksum(answer[:20]) == internet_checksum(answer[20:]) == 0
    else:
        pseudo = ipv6_pseudo_header_sum(header.source, header.destination, len(answer) - 40, 58)
        assert internet_checksum(answer[40:], pseudo) == 0
    assert icmp.unreachable(answer) is None  # errors are not answered


@given(packets, st.binary(max_size=15))
def test_padding_changes_nothing(packet: bytes, padding: bytes) -> None:
    assert addresses(packet + padding) == addresses(packet)
