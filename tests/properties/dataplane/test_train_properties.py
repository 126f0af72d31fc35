"""Trains over a link that does everything a link can do, and from a member that sends what it likes.

What the receiving machine gets is compared with a segmentation of its own (tests/super_packets.py).
"""

from collections import Counter
from collections.abc import Sequence

import pytest
from engines_in_memory import Pair
from hypothesis import example, given, settings
from hypothesis import strategies as st
from super_packets import ACK, CWR, FIN, PSH, begun, check, from_device, packets_of, tcp, udp
from super_packets import without_identification as plain

from dhtvpn.dataplane.messages import SetFeatures
from dhtvpn.packet.ip import addresses

HOSTS = [("10.1.0.1", "10.1.0.2"), ("fd00::1", "fd00::2")]
HOME = ("192.0.2.1", 4001)
ALLOWED = {bytes([10, 1, 0, 1]), bytes.fromhex("fd" + 28 * "0" + "01")}
LOCAL = {bytes([10, 1, 0, 2]), bytes.fromhex("fd" + 28 * "0" + "02")}

words = st.integers(0, 10).map(lambda count: b"\x01" * 4 * count)
payloads = st.integers(1, 600).map(lambda size: bytes(n * n % 251 for n in range(size)))
super_packets = st.builds(
    lambda hosts, payload, segment, ip_options, **rest: (
        tcp(*hosts, payload, ip_options=ip_options, **rest),
        segment,
    ),
    st.sampled_from(HOSTS),
    payloads,
    st.integers(7, 200),
    words,
    options=words,
    sequence=st.integers(0, (1 << 32) - 1),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | FIN | PSH, ACK | PSH | CWR]),
) | st.builds(
    lambda hosts, payload, segment, ip_options, **rest: (
        udp(*hosts, payload, ip_options=ip_options, **rest),
        segment,
    ),
    st.sampled_from(HOSTS),
    payloads,
    st.integers(7, 200),
    words,
    ports=st.tuples(st.integers(1, 3), st.just(53)),
)


def make_pair(aes: bool, first_counter: int = 0) -> Pair:
    pair = Pair.with_trains(aes=aes)
    session = pair.a.engine._peers.by_number[1].transport._slots.current
    assert session is not None
    session.counter = first_counter
    return pair


def wire(packet: bytes, segment: int) -> list[bytes]:
    return [plain(each) for each in packets_of(from_device(packet, segment))]


@given(st.lists(super_packets, min_size=1, max_size=4), st.booleans(), st.integers(0, 1 << 20))
def test_what_goes_in_comes_out(sent: list[tuple[bytes, int]], aes: bool, counter: int) -> None:
    pair = make_pair(aes, counter)
    for packet, segment in sent:
        pair.a.send(from_device(packet, segment))
        runs = len(pair.a.socket.sent)
        pair.carry_runs()
        written = pair.b.take_received()
        if runs == 1 and len(wire(packet, segment)) > 1:
            assert written == [from_device(packet, segment)]
        assert [plain(each) for one in written for each in packets_of(one)] == wire(packet, segment)
    assert pair.b.drops() == {}


class Link:
    """Loses, repeats, reorders, truncates, corrupts, and puts datagrams of equal length into runs."""

    def __init__(self, draw: st.DrawFn, datagrams: list[bytes]) -> None:
        self._draw = draw
        self.arriving = datagrams

    def meddle(self) -> None:
        for _ in range(self._draw(st.integers(0, 6))):
            if not self.arriving:
                return
            at = self._draw(st.integers(0, len(self.arriving) - 1))
            chosen = self.arriving[at]
            match self._draw(st.sampled_from(["lose", "repeat", "move", "cut", "corrupt"])):
                case "lose":
                    del self.arriving[at]
                case "repeat":
                    self.arriving.insert(self._draw(st.integers(0, len(self.arriving))), chosen)
                case "move":
                    del self.arriving[at]
                    self.arriving.insert(self._draw(st.integers(0, len(self.arriving))), chosen)
                case "cut" if chosen:
                    self.arriving[at] = chosen[: self._draw(st.integers(0, len(chosen) - 1))]
                case "corrupt" if chosen:
                    bad = bytearray(chosen)
                    bad[self._draw(st.integers(0, len(bad) - 1))] ^= 1 << self._draw(st.integers(0, 7))
                    self.arriving[at] = bytes(bad)

    def runs(self) -> list[list[bytes]]:
        """As UDP_GRO makes them: equal lengths, and one shorter at the end; sometimes cut."""
        cuts = self._draw(st.sets(st.integers(0, len(self.arriving)), max_size=4))
        found: list[list[bytes]] = []
        for number, each in enumerate(self.arriving):
            joins = found and len(found[-1][-1]) == len(found[-1][0]) >= len(each) > 0
            if joins and number not in cuts:
                found[-1].append(each)
            else:
                found.append([each])
        return found


@settings(max_examples=250)
@given(st.data(), st.lists(super_packets, min_size=1, max_size=4), st.booleans(), st.integers(0, 1 << 17))
def test_any_link(data: st.DataObject, sent: list[tuple[bytes, int]], aes: bool, counter: int) -> None:
    pair = make_pair(aes, counter)
    stands_for: dict[bytes, bytes] = {}
    for packet, segment in sent:
        pair.a.send(from_device(packet, segment))
        packets, pieces = wire(packet, segment), pair.a.take_sent()
        stands_for.update(zip(pieces, packets, strict=True))
    link = Link(data.draw, list(stands_for))
    link.meddle()
    came = []
    for run in link.runs():
        pair.b.receive_run(run, source=HOME)
        came += [plain(each) for one in pair.b.take_received() for each in packets_of(one)]
    intact = set(link.arriving) & set(stands_for)
    assert Counter(came) == Counter(stands_for[each] for each in intact)


packets = st.builds(
    lambda make, hosts, payload, options: make(*hosts, payload, **options),
    st.sampled_from([tcp, udp]),
    st.sampled_from(
        [
            *HOSTS,
            ("10.1.0.3", "10.1.0.2"),
            ("10.1.0.1", "10.1.0.3"),
            ("fd00::3", "fd00::2"),
            ("fd00::1", "ff02::1"),
        ]
    ),
    st.integers(0, 60).map(bytes),
    st.fixed_dictionaries({}, optional={"ip_options": words, "tos": st.integers(0, 255)}),
)


@st.composite
def plaintexts(draw: st.DrawFn) -> bytes:
    """Packets with marks, with headers changed anywhere, with bytes behind them or cut."""
    packet = bytearray(draw(st.sampled_from([begun, bytes]))(draw(packets)))
    packet[0] |= draw(st.sampled_from([0, 0x80, 0x80, 0x90]))
    for _ in range(draw(st.integers(0, 2))):
        packet[draw(st.integers(0, min(len(packet), 60) - 1))] = draw(st.integers(0, 255))
    packet += bytes(draw(st.sampled_from([0, 0, 0, 3, 16])))
    return bytes(packet[: draw(st.sampled_from([len(packet), len(packet), 39, 24, 1]))])


@st.composite
def hostile_runs(draw: st.DrawFn) -> list[bytes]:
    """Runs of equal length, often of one train, often with one odd message in them."""
    first = draw(plaintexts())
    size = len(first)
    run = [first] * draw(st.integers(1, 6))
    for _ in range(draw(st.integers(0, 3))):
        odd = draw(plaintexts())[:size].ljust(size, b"\0")
        run[draw(st.integers(0, len(run) - 1))] = odd
    end = draw(st.none() | plaintexts() | st.just(b""))
    return run if end is None else [*run, end[:size]]


def seal(pair: Pair, plaintext: bytes, *, own_counter: bool) -> bytes:
    """With the low bits of the counter where a SEGMENT of TCP over IPv4 has them, unless ``own_counter``."""
    transport = pair.a.engine._peers.by_number[1].transport
    session = transport._slots.current
    assert session is not None
    if not own_counter and len(plaintext) > 38 and plaintext[0] == 0xC5:
        plaintext = plaintext[:36] + b"\0\0" + plaintext[38:]  # of a train that began with counter 0
    transport.mtu = 0  # no padding
    datagram = transport.seal(plaintext, 0.0)
    assert datagram is not None
    return datagram


def delivered_is_allowed(written: Sequence[bytes]) -> None:
    for each in written:
        packet = each[10:]
        length, source, destination = addresses(packet)
        assert length == len(packet)
        assert source in ALLOWED
        assert destination in LOCAL
        check(each)


@settings(max_examples=200)
@given(
    st.lists(hostile_runs() | st.lists(st.binary(max_size=80), min_size=1, max_size=1), max_size=5),
    st.booleans(),
    st.integers(0, 3),
    st.booleans(),
)
@example([[b"\xc5" + tcp("10.1.0.1", "10.1.0.2", b"x")[1:], b""]], False, 0, False)
def test_a_member_that_sends_what_it_likes(
    runs: list[list[bytes]], own_counter: bool, mark: int, trains: bool
) -> None:
    pair = Pair.with_trains()
    if not trains:
        features = SetFeatures(1, trains=False, udp_trains=False, aes=False, blocks=False)
        pair.b.engine.handle_command(features, 0.0)
    for run in runs:
        datagrams = [seal(pair, plaintext, own_counter=own_counter) for plaintext in run]
        pair.b.receive_run(datagrams, mark, source=HOME)
    assert not pair.b.engine._inbound._delivery._joined
    delivered_is_allowed(pair.b.take_received())


@settings(max_examples=200)
@given(st.data(), super_packets, st.booleans())
def test_mutated_trains_of_a_member(data: st.DataObject, sent: tuple[bytes, int], aes: bool) -> None:
    """Pieces opened, changed in some bytes and sealed anew under the counters that they had."""
    pair = make_pair(aes)
    pair.a.send(from_device(*sent))
    opener = Pair.with_trains(aes=aes)
    opener_transport = opener.b.engine._peers.by_number[1].transport
    pieces = [bytearray(opener_transport.open(each, 0.0)) for each in pair.a.take_sent()]
    for _ in range(data.draw(st.integers(1, 4))):
        piece = pieces[data.draw(st.integers(0, len(pieces) - 1))]
        at = data.draw(st.integers(0, min(len(piece), 64) - 1))
        piece[at] = data.draw(st.integers(0, 255))
    writer = make_pair(aes)
    datagrams = [seal(writer, bytes(piece), own_counter=True) for piece in pieces]
    for start in range(0, len(datagrams), 64):
        pair.b.receive_run(datagrams[start : start + 64], source=HOME)
    delivered_is_allowed(pair.b.take_received())


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=100_000)
@given(st.lists(hostile_runs(), max_size=5), st.booleans())
def test_a_member_that_goes_on_and_on(runs: list[list[bytes]], own_counter: bool) -> None:
    pair = Pair.with_trains()
    for run in runs:
        datagrams = [seal(pair, plaintext, own_counter=own_counter) for plaintext in run]
        pair.b.receive_run(datagrams, source=HOME)
    delivered_is_allowed(pair.b.take_received())
