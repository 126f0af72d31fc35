"""Datagrams: byte-exact vectors, round trips, and everything that must be refused."""

import json
from pathlib import Path

import pytest

from dhtvpn.discovery import msgpack
from dhtvpn.discovery.contact import Contact, may_be_told
from dhtvpn.discovery.node_ids import bound_id
from dhtvpn.discovery.wire import (
    CONTACTS_IN_REPLY,
    HEADER_LENGTH,
    KIND_REPLY,
    MAX_DATAGRAM,
    MAX_HAVE,
    PADDED_REQUEST,
    Flags,
    Reply,
    Request,
    Rpc,
    Status,
    decode_reply,
    decode_request,
    decode_value,
    encode_reply,
    encode_request,
    encode_value,
    frame,
    pack_have,
    split,
    unpack_have,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "discovery" / "datagrams.json").read_text(encoding="utf-8")
)
ID, KEY, TOKEN = b"I" * 20, b"K" * 20, b"T" * 8
SOURCE = Endpoint("198.18.0.1", 4690)


def request_of(fields):
    return Request(
        Rpc(fields["rpc"]),
        bytes.fromhex(fields["node_id"]),
        bytes.fromhex(fields["token"]),
        Flags(fields["flags"]),
        bytes.fromhex(fields.get("target", "")),
        bytes.fromhex(fields.get("payload", "")),
    )


def reply_of(fields):
    contacts = tuple(
        Contact(bytes.fromhex(i), Endpoint(host, port)) for i, host, port in fields.get("contacts", [])
    )
    return Reply(
        bytes.fromhex(fields["node_id"]),
        bytes.fromhex(fields["token"]),
        contacts,
        fields.get("values", 0),
        fields.get("more", 0),
        Status(fields.get("status", 0)),
        fields.get("lease_s", 0),
        fields.get("unix_time", 0),
        Endpoint(*fields["seen"]) if "seen" in fields else None,
    )


@pytest.mark.parametrize("vector", VECTORS["requests"], ids=lambda v: v["name"])
def test_request_vectors(vector):
    datagram, message_id = bytes.fromhex(vector["datagram"]), bytes.fromhex(vector["message_id"])
    assert encode_request(message_id, request_of(vector)) == datagram
    kind, seen_id, body = split(datagram)
    assert (kind, seen_id) == (0, message_id)
    assert decode_request(body) == request_of(vector)


@pytest.mark.parametrize("vector", VECTORS["replies"], ids=lambda v: v["name"])
def test_reply_vectors(vector):
    datagram, message_id = bytes.fromhex(vector["datagram"]), bytes.fromhex(vector["message_id"])
    rpc = Rpc(vector["rpc"])
    assert encode_reply(message_id, rpc, reply_of(vector)) == datagram
    kind, seen_id, body = split(datagram)
    assert (kind, seen_id) == (1, message_id)
    assert decode_reply(rpc, body, SOURCE) == reply_of(vector)


@pytest.mark.parametrize("vector", VECTORS["values"], ids=lambda v: v["name"])
def test_value_vectors(vector):
    datagram, message_id = bytes.fromhex(vector["datagram"]), bytes.fromhex(vector["message_id"])
    envelope = bytes.fromhex(vector["envelope"])
    assert encode_value(message_id, envelope) == datagram
    assert decode_value(split(datagram)[2]) == envelope


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda v: v["name"])
def test_refused_vectors(vector):
    with pytest.raises(DecodeError) as caught:
        kind, _, body = split(bytes.fromhex(vector["datagram"]))
        if kind == 0:
            decode_request(body)
        elif kind == 1:
            decode_reply(Rpc(vector["rpc"]), body, SOURCE)
        else:
            decode_value(body)
    assert caught.value.reason == vector["reason"]


@pytest.mark.parametrize("rpc", list(Rpc))
def test_requests_without_token_are_padded_when_the_answer_is_long(rpc):
    target = b"" if rpc is Rpc.PING else KEY
    size = len(encode_request(bytes(20), Request(rpc, ID, b"", Flags(3), target)))
    assert (size == PADDED_REQUEST) == (rpc in (Rpc.FIND, Rpc.FIND_NODE))


@pytest.mark.parametrize("entries", range(MAX_HAVE + 1))
def test_padding_is_exact_whatever_the_have_list(entries):
    have = pack_have((bytes([n]) * 16, n) for n in range(entries))
    size = len(encode_request(bytes(20), Request(Rpc.FIND, ID, b"", Flags(3), KEY, have)))
    assert PADDED_REQUEST <= size <= max(PADDED_REQUEST + 1, 90 + len(have)) <= MAX_DATAGRAM


def test_largest_messages_fit_one_datagram():
    have = pack_have((bytes([n]) * 16, n) for n in range(200))
    assert len(encode_request(bytes(20), Request(Rpc.FIND, ID, TOKEN, Flags(3), KEY, have))) <= MAX_DATAGRAM
    assert (
        len(encode_request(bytes(20), Request(Rpc.STORE, ID, TOKEN, Flags(3), KEY, bytes(900))))
        <= MAX_DATAGRAM
    )
    contacts = [Contact(bytes([n]) * 20, Endpoint("198.18.0.9", 1)) for n in range(CONTACTS_IN_REPLY)]
    contacts += [Contact(bytes([n]) * 20, Endpoint("2001:db8::9", 1)) for n in range(CONTACTS_IN_REPLY)]
    reply = Reply(ID, TOKEN, tuple(contacts), 32, 99, seen=Endpoint("2001:db8::9", 1))
    assert len(encode_reply(bytes(20), Rpc.FIND, reply)) <= MAX_DATAGRAM
    assert len(encode_value(bytes(20), bytes(900))) <= MAX_DATAGRAM


def test_have_round_trip():
    entries = [(bytes([n]) * 16, n * 10**15) for n in range(5)]
    assert unpack_have(pack_have(entries)) == {slot[:6]: sequence for slot, sequence in entries}


def test_duplicate_and_useless_contacts_are_left_out_of_a_reply():
    good = Contact(bound_id("198.18.0.7", lambda n: b"G" * n), Endpoint("198.18.0.7", 7))
    packed = [
        good.pack(),
        good.node_id + Endpoint("198.18.0.7", 8).pack(),
        b"G" * 20 + Endpoint("198.18.0.9", 9).pack(),
        *(
            b"%c" % (65 + n) * 20 + Endpoint(host, 9).pack()
            for n, host in enumerate(["127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.1.1"])
        ),
        b"Z" * 20 + bytes([198, 18, 0, 9, 0, 0]),
    ]
    mapped = b"M" * 20 + bytes(10) + b"\xff\xff" + bytes([198, 18, 0, 9, 0, 9])
    body = frame(KIND_REPLY, bytes(20), [ID, TOKEN, b"", b"".join(packed), mapped])[HEADER_LENGTH:]
    assert decode_reply(Rpc.FIND_NODE, body, SOURCE).contacts == (good,)


@pytest.mark.parametrize(
    ("teller", "told", "follow"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("198.18.0.1", "127.0.0.1", False),
        ("198.18.0.1", "10.0.0.1", False),
        ("10.0.0.2", "192.168.0.1", True),
        ("10.0.0.2", "198.18.0.1", True),
        ("198.18.0.1", "fd00::1", False),
        ("fd00::2", "fd00::1", True),
        ("fe80::1", "fe80::2", True),
        ("2001:db8::1", "fe80::2", False),
        ("2001:db8::1", "::1", False),
        ("2001:db8::1", "ff02::1", False),
    ],
)
def test_whom_a_node_may_send_us_to(teller, told, follow):
    assert may_be_told(Endpoint(told, 1), Endpoint(teller, 1)) is follow


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x91",
        b"\x91" * 5000 + b"\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc7\x01\x05\x00",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\x81\x01\x02",
        b"\xca\x00\x00\x00\x00",
        b"\xc1",
        b"\x01\x02",
        b"\xc4\x05ab",
        b"\xa2\xff\xfe",
        b"\x9f" + b"\x9f" * 3,
        bytes([0x9F]) + b"\x93\x01\x01\x01" * 15,
    ],
)
def test_msgpack_refuses(data):
    with pytest.raises(DecodeError):
        msgpack.unpack(data)


@pytest.mark.parametrize(
    "value",
    [0, -1, -(2**63), 2**64 - 1, 300, 70000, b"x" * 300, "name", [], [[b"", [1, "a"]], 2], None, True],
)
def test_msgpack_round_trip(value):
    assert msgpack.unpack(msgpack.pack(value)) == value
