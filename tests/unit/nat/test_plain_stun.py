"""The STUN service without a library: the same answers as the one with it, and nothing that raises."""

import random

import pytest
from aioice import stun

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.nat.plain_stun import PlainStunService, read_request, success
from dhtvpn.nat.stun_limit import SOURCE_BURST
from dhtvpn.nat.stun_messages import binding_request, binding_response, mapped_endpoint, parse

SOURCE = Endpoint("192.0.2.1", 1000)
SIX = Endpoint("2001:db8::1", 2000)


class SilentPort:
    def __init__(self) -> None:
        self.drops = Drops()
        self.sent: list[tuple[bytes, Endpoint]] = []
        self.handler = None

    def on_stun(self, handler) -> None:
        self.handler = handler

    def answer(self, data: bytes, endpoint: Endpoint) -> bool:
        self.sent.append((data, endpoint))
        return True


def request_with(**attributes) -> bytes:
    return bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST, bytes(12), attributes))


@pytest.mark.parametrize("source", [SOURCE, SIX])
@pytest.mark.parametrize("fingerprint", [False, True])
def test_it_answers_byte_for_byte_as_the_other_service(source, fingerprint):
    port = SilentPort()
    PlainStunService(port, clock=lambda: 0.0)
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, b"t" * 12)
    if fingerprint:
        request.add_fingerprint()
    port.handler(bytes(request), source)
    assert port.sent == [(binding_response(b"t" * 12, source, fingerprint), source)]
    assert mapped_endpoint(parse(port.sent[0][0])) == source


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "length"),
        (binding_request(bytes(12)) + bytes(2), "length"),
        (binding_request(bytes(12)) + bytes(4), "length"),
        (binding_request(bytes(12))[:4] + bytes(4) + bytes(12), "cookie"),
        (binding_response(bytes(12), SOURCE), "method"),
        (
            bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST, bytes(12), {"USERNAME": "a:b"})),
            "ufrag",
        ),
        (
            bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST, bytes(12), {"CHANGE-REQUEST": 6})),
            "unsupported",
        ),
        (b"\0\1\0\4\x21\x12\xa4\x42" + bytes(12) + b"\x80\x22\0\x09", "attributes"),
    ],
)
def test_everything_else_is_dropped_and_counted(data, reason):
    port = SilentPort()
    PlainStunService(port, clock=lambda: 0.0)
    port.handler(data, SOURCE)
    assert port.sent == []
    assert port.drops.as_dict() == {f"stun.{reason}": 1}


def test_a_source_is_limited_before_anything_is_read():
    port = SilentPort()
    service = PlainStunService(port, clock=lambda: 0.0)
    for _ in range(int(SOURCE_BURST) + 5):
        port.handler(binding_request(bytes(12)), SOURCE)
    assert service.answered == SOURCE_BURST
    port.handler(b"garbage", SOURCE)
    assert port.drops.as_dict() == {"stun.rate": 6}


def test_mutated_requests_are_read_or_refused():
    rng = random.Random(5)
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, bytes(12), {"SOFTWARE": "x" * 9})
    request.add_fingerprint()
    for _ in range(3000):
        data = bytearray(bytes(request))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            transaction_id, fingerprint = read_request(
                bytes(data[: rng.choice([len(data), rng.randrange(60)])])
            )
        except DecodeError:
            continue
        assert len(success(transaction_id, SIX, fingerprint)) <= 52


def test_an_answer_tells_no_zone() -> None:
    neighbour = Endpoint("fe80:3::1", 7)
    told = success(bytes(12), neighbour, False)
    assert (
        told == success(bytes(12), neighbour.without_zone(), False) == binding_response(bytes(12), neighbour)
    )
