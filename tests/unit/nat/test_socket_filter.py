"""The filters, run by a small interpreter, held against demux and the lengths of the real messages; then
attached to sockets on loopback."""

import os
import random
import socket
from collections.abc import Mapping

import pytest

from dhtvpn.discovery.lan_wire import DATAGRAM_SIZE
from dhtvpn.discovery.wire import KIND_VALUE, MAX_DATAGRAM, Request, Rpc, encode_request
from dhtvpn.endpoint import Endpoint
from dhtvpn.nat import krpc, socket_filter
from dhtvpn.nat.demux import DHT_PREFIX_BYTES, NOTE_PREFIX_BYTES
from dhtvpn.nat.socket_filter import (
    DROP,
    PASS_BITS,
    TAKE,
    Instruction,
    attach,
    control_filter,
    dropped,
    engine_filter,
    group_filter,
    relay_filter,
    source_key,
)
from dhtvpn.nat.stun_messages import binding_request, binding_response
from dhtvpn.wireguard import messages
from dhtvpn.wireguard.transport import OVERHEAD

TAG = 0xBEEF
INDEX = (TAG << 16 | 0x1234).to_bytes(4, "little")
STRANGE = (0xDEAD << 16 | 0x1234).to_bytes(4, "little")
V4 = bytes(12) + socket.inet_aton("192.0.2.7") + bytes(4)
V6 = bytes(8) + socket.inet_pton(socket.AF_INET6, "2001:db8:1:2::7") + bytes(16)


def run(
    program: tuple[Instruction, ...], payload: bytes, *, network: bytes = V4, random_word: int = 0
) -> int:
    """linux/net/core/filter.c in small; ``network`` is the IP header."""
    data, a, x, line = bytes(8) + payload, 0, 0, 0
    while True:
        code, if_true, if_false, constant = program[line]
        line += 1
        if code in (0x20, 0x28, 0x30):
            offset = constant - (1 << 32) if constant >> 31 else constant
            if offset == -0x1000 + 56:
                a = random_word
                continue
            size = {0x20: 4, 0x28: 2, 0x30: 1}[code]
            source, start = (network, offset + 0x100000) if offset < 0 else (data, offset)
            if start + size > len(source):
                return 0
            a = int.from_bytes(source[start : start + size], "big")
        elif code == 0x80:
            a = len(data)
        elif code == 0x54:
            a &= constant
        elif code == 0x04:
            a += constant
        elif code == 0x07:
            x = a
        elif code in (0x15, 0x1D, 0x25):
            truth = {0x15: a == constant, 0x1D: a == x, 0x25: a > constant}[code]
            line += if_true if truth else if_false
        else:
            assert code == 0x06
            return constant


def genuine() -> dict[str, bytes]:
    """What must pass at a control socket."""
    rng = random.Random(1)
    request = Request(Rpc.PING, rng.randbytes(20))
    stun = binding_request(rng.randbytes(12))
    return {
        "initiation": b"\1\0\0\0" + rng.randbytes(144),
        "response": b"\2\0\0\0" + rng.randbytes(4) + INDEX + rng.randbytes(80),
        "cookie reply": b"\3\0\0\0" + INDEX + rng.randbytes(56),
        "stun request": stun,
        "stun response": binding_response(rng.randbytes(12), Endpoint("2001:db8::1", 9), True),
        "shortest ping": DHT_PREFIX_BYTES + encode_request(rng.randbytes(20), request),
        "longest dht": DHT_PREFIX_BYTES + bytes([KIND_VALUE]) + rng.randbytes(MAX_DATAGRAM - 1),
    }


def garbage() -> dict[str, bytes]:
    right = genuine()
    return {
        **{
            f"{name}, short": data[:-1]
            for name, data in right.items()
            if "ping" not in name and "long" not in name
        },
        **{f"{name}, long": data + b"\0" for name, data in right.items() if "ping" not in name},
        "empty": b"",
        "one byte": b"\1",
        "no type": b"\6\0\0\0" + bytes(144),
        "type 1, reserved": b"\1\0\0\1" + bytes(144),
        "response for another": right["response"].replace(INDEX, STRANGE),
        "cookie reply for another": right["cookie reply"].replace(INDEX, STRANGE),
        "no cookie": right["stun request"].replace(b"\x21\x12", b"\x21\x13"),
        "dht kind": DHT_PREFIX_BYTES + b"\3" + bytes(100),
        "dht, no body": DHT_PREFIX_BYTES + bytes(21),
        "data": b"\4\0\0\0" + INDEX + bytes(24),
    }


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", sorted(genuine()))
def test_what_a_taker_could_want_passes(name: str, family: int) -> None:
    assert run(control_filter(family, TAG), genuine()[name]) == TAKE


@pytest.mark.parametrize("name", sorted(garbage()))
def test_what_nobody_takes_is_dropped(name: str) -> None:
    assert run(control_filter(4, TAG), garbage()[name]) == DROP


def test_a_node_without_tunnels_takes_stun_and_dht_only() -> None:
    program = control_filter(4, None)
    passed = {name for name, data in genuine().items() if run(program, data) == TAKE}
    assert passed == {"stun request", "stun response", "shortest ping", "longest dht"}


def test_noise_does_not_get_through() -> None:
    rng, program = random.Random(2), control_filter(6, TAG)
    passed = sum(run(program, rng.randbytes(rng.randint(0, 1400))) == TAKE for _ in range(20_000))
    assert passed < 20  # one in 256 begins like the DHT, three in 256 of those go on like it


def test_the_lengths_are_those_of_the_messages() -> None:
    assert socket_filter.HANDSHAKE_SIZES == messages.SIZES
    assert socket_filter.DATA_LEAST == OVERHEAD
    assert socket_filter.DHT_MOST == 1 + MAX_DATAGRAM


@pytest.mark.parametrize("kind", [4, 5])
def test_the_engine_gets_data_for_indices_that_may_be_ours(kind: int) -> None:
    program = engine_filter(TAG)
    head = bytes([kind, 0, 0, 0])
    assert run(program, head + INDEX + bytes(24)) == TAKE
    assert run(program, head + INDEX + bytes(23)) == DROP
    assert run(program, head + STRANGE + bytes(24)) == DROP
    assert run(program, bytes([kind, 1, 0, 0]) + INDEX + bytes(24)) == DROP
    assert run(program, b"") == DROP


def test_without_a_socket_of_the_engines_data_comes_to_control() -> None:
    program = control_filter(4, TAG, data=True)
    assert run(program, b"\4\0\0\0" + INDEX + bytes(24)) == TAKE
    assert run(program, b"\5\0\0\0" + INDEX + bytes(24)) == TAKE
    assert run(program, b"\5\0\0\0" + STRANGE + bytes(24)) == DROP
    assert all(run(program, data) == TAKE for data in genuine().values())


@pytest.mark.parametrize(("family", "host", "network"), [(4, "192.0.2.7", V4), (6, "2001:db8:1:2::99", V6)])
def test_a_thinned_source_gets_one_in_two_to_the_n(family: int, host: str, network: bytes) -> None:
    """What answers a message of ours is never thinned."""
    thinned = {source_key("198.51.100.1"): 8, source_key("2001:db8:9::1"): 8, source_key(host): 3}
    program = control_filter(family, TAG, thinned)
    for name, data in genuine().items():
        passed = [run(program, data, network=network, random_word=word) == TAKE for word in range(64)]
        assert sum(passed) == (64 if name in ("response", "cookie reply") else 8), name
        assert run(program, data, network=bytes(40), random_word=1) == TAKE


def test_the_longest_program_can_be_jumped_over() -> None:
    thinned: Mapping[bytes, int] = {os.urandom(8): PASS_BITS for _ in range(16)}
    program = control_filter(6, TAG, thinned, data=True)
    assert all(0 <= line.if_true < 256 and 0 <= line.if_false < 256 for line in program)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_takes_the_filters_and_counts_what_they_drop(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    thinned = {source_key(host): PASS_BITS}
    with (
        socket.socket(family, socket.SOCK_DGRAM) as receiver,
        socket.socket(family, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((host, 0))
        receiver.settimeout(5)
        sender.connect(receiver.getsockname())
        attach(receiver, control_filter(6 if ":" in host else 4, TAG))
        for data in (*garbage().values(), *genuine().values()):
            sender.send(data)
        assert [receiver.recv(2048) for _ in genuine()] == list(genuine().values())
        assert dropped(receiver) == len(garbage())
        attach(receiver, control_filter(6 if ":" in host else 4, TAG, thinned))
        for _ in range(2000):
            sender.send(genuine()["initiation"])
        assert 1800 < dropped(receiver) - len(garbage()) < 2000
        attach(receiver, engine_filter(TAG))
        sender.send(genuine()["initiation"])
        sender.send(b"\4\0\0\0" + INDEX + bytes(24))
        while (data := receiver.recv(2048))[0] == 1:
            pass
        assert data[0] == 4


IDENTITY = b"idididi"


def test_relayed_data_is_for_the_engine_and_names_an_index_of_ours() -> None:
    data = b"\xd9" + IDENTITY + b"\4\0\0\0" + INDEX + bytes(24)
    assert run(engine_filter(TAG), data) == TAKE
    assert run(control_filter(4, TAG, data=True), data) == TAKE
    assert run(control_filter(4, TAG), data) == DROP
    foreign = data[:14] + bytes(2) + data[16:]
    for other in (foreign, data[:-1], b"\xd9", data[8:] + b"", b"\xda" + data[1:]):
        expected = TAKE if other == data[8:] else DROP
        assert run(engine_filter(TAG), other) == expected
    assert run(relay_filter(), data) == run(relay_filter(), foreign) == TAKE
    assert run(relay_filter(), data[:-1]) == run(relay_filter(), data[8:]) == run(relay_filter(), b"") == DROP


@pytest.mark.parametrize("family", [4, 6])
def test_relayed_handshakes_and_registrations_have_their_lengths(family: int) -> None:
    network = V6 if family == 6 else V4
    for tag, relaying, expected in ((TAG, False, TAKE), (None, True, TAKE), (None, False, DROP)):
        program = control_filter(family, tag, relaying=relaying)
        for size in (148, 92, 64):
            assert run(program, b"\xda" + bytes(15 + size), network=network) == expected
            assert run(program, b"\xda" + bytes(16 + size), network=network) == DROP
        assert run(program, b"\xdb\1" + bytes(24), network=network) == expected
        assert run(program, b"\xdb\1" + bytes(25), network=network) == DROP
    data = b"\xd9" + IDENTITY + b"\4\0\0\0" + bytes(28)
    assert run(control_filter(family, None, relaying=True, data=True), data, network=network) == TAKE
    assert run(control_filter(family, None, relaying=True), data, network=network) == DROP


def test_notes_pass_where_there_are_tunnels_and_have_one_length() -> None:
    note = NOTE_PREFIX_BYTES + bytes(DATAGRAM_SIZE)
    assert len(note) == socket_filter.NOTE_SIZE
    assert run(control_filter(4, TAG), note) == TAKE
    assert run(control_filter(6, TAG, data=True), note, network=V6) == TAKE
    for other in (note[:-1], note + b"x", NOTE_PREFIX_BYTES):
        assert run(control_filter(4, TAG), other) == DROP
    assert run(control_filter(4, None), note) == DROP, "a bootstrap node is no member"
    thinned = {source_key("192.0.2.7"): 1}
    assert run(control_filter(4, TAG, thinned), note, random_word=1) == DROP


@pytest.mark.parametrize(
    ("family", "destination", "verdict"),
    [
        (4, "239.255.68.86", TAKE),
        (4, "224.0.0.1", TAKE),
        (4, "192.0.2.9", DROP),
        (6, "ff12::d7:6876:706e", TAKE),
        (6, "2001:db8::9", DROP),
        (6, "fe80::9", DROP),
    ],
)
def test_the_lan_socket_takes_only_what_is_for_a_group(family: int, destination: str, verdict: int) -> None:
    address = socket.inet_pton(socket.AF_INET6 if family == 6 else socket.AF_INET, destination)
    network = bytes(24 if family == 6 else 16) + address
    assert run(group_filter(family, 1192), bytes(1192), network=network) == verdict
    assert run(group_filter(family, 1192), bytes(1191), network=network) == DROP


def test_answers_of_the_bittorrent_dht_pass_only_where_it_is_used() -> None:
    answer = b"d2:ip6:" + bytes(6) + b"1:rd2:id20:" + bytes(20) + b"e1:t8:" + bytes(8) + b"1:y1:re"
    program = control_filter(4, TAG, krpc_answers=True)
    assert run(program, answer) == TAKE
    assert run(control_filter(4, TAG), answer) == DROP
    for length, verdict in (
        (krpc.LEAST - 1, DROP),
        (krpc.LEAST, TAKE),
        (krpc.MOST, TAKE),
        (krpc.MOST + 1, DROP),
    ):
        assert run(program, b"d" * length) == verdict
    assert all(run(program, data) == TAKE for data in genuine().values())
    assert all(run(program, data) == DROP for data in garbage().values())
    thinned = {source_key("192.0.2.7"): 1}
    program = control_filter(4, TAG, thinned, krpc_answers=True)
    assert {run(program, answer, random_word=word) for word in (0, 1)} == {TAKE, DROP}


@pytest.mark.parametrize("family", [4, 6])
def test_the_longest_program_with_those_answers_too(family: int) -> None:
    thinned: Mapping[bytes, int] = {os.urandom(4 if family == 4 else 8): PASS_BITS for _ in range(16)}
    program = control_filter(family, TAG, thinned, data=True, krpc_answers=True)
    assert all(0 <= line.if_true < 256 and 0 <= line.if_false < 256 for line in program)
