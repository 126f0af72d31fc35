"""Who gets a STUN message."""

import pytest
from aioice import stun

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import UsageError
from dhtvpn.nat import stun_router
from dhtvpn.nat.stun_messages import binding_request, binding_response
from dhtvpn.nat.stun_router import StunRouter

SOURCE = Endpoint("192.0.2.1", 1000)


@pytest.fixture
def router() -> StunRouter:
    return StunRouter(Drops())


def check(username: str) -> bytes:
    return bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST, bytes(12), {"USERNAME": username}))


def test_a_check_goes_to_the_agent_of_its_ufrag(router) -> None:
    got: list[str] = []
    router.add_agent("left", lambda message, source: got.append("left"))
    router.add_agent("other", lambda message, source: got.append("other"))
    router.handle_datagram(check("left:right"), SOURCE)
    assert got == ["left"]


def test_a_response_goes_to_its_transaction_and_to_no_other(router) -> None:
    got: list[Endpoint] = []
    router.expect(b"a" * 12, lambda message, source: got.append(source))
    router.handle_datagram(binding_response(b"b" * 12, SOURCE), SOURCE)
    assert got == []
    router.handle_datagram(binding_response(b"a" * 12, SOURCE), SOURCE)
    assert got == [SOURCE]
    router.forget(b"a" * 12)
    router.handle_datagram(binding_response(b"a" * 12, SOURCE), SOURCE)
    assert router._drops.as_dict() == {"stun.transaction": 2}


def test_a_request_without_username_goes_to_the_service(router) -> None:
    got: list[bytes] = []
    router.handle_datagram(binding_request(b"a" * 12), SOURCE)
    router.on_binding_request(lambda message, source: got.append(message.transaction_id))
    router.handle_datagram(binding_request(b"a" * 12), SOURCE)
    assert got == [b"a" * 12]
    assert router._drops.as_dict() == {"stun.no_service": 1}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (check("stranger:right"), "stun.ufrag"),
        (check(""), "stun.ufrag"),
        (bytes(stun.Message(stun.Method.BINDING, stun.Class.INDICATION)), "stun.indication"),
        (bytes(stun.Message(stun.Method.ALLOCATE, stun.Class.REQUEST)), "stun.method"),
        (binding_request(bytes(12)) + b"\0", "stun.length"),
        (b"\x00\x01\x00\x04\x21\x12\xa4\x42" + bytes(12) + b"\x00\x06\x00\x05", "stun.attributes"),
        (b"\x00\x01\x00\x08\x21\x12\xa4\x42" + bytes(12) + b"\x00\x24\x00\x02" + bytes(4), "stun.message"),
    ],
)
def test_what_belongs_to_nobody_is_counted(router, data: bytes, reason: str) -> None:
    router.handle_datagram(data, SOURCE)
    assert router._drops.as_dict() == {reason: 1}


def test_a_ufrag_has_one_agent(router) -> None:
    router.add_agent("left", lambda message, source: None)
    with pytest.raises(UsageError):
        router.add_agent("left", lambda message, source: None)
    router.remove_agent("left")
    router.remove_agent("left")
    router.add_agent("left", lambda message, source: None)


def test_agents_and_transactions_are_capped(router, monkeypatch) -> None:
    monkeypatch.setattr(stun_router, "MAX_AGENTS", 2)
    monkeypatch.setattr(stun_router, "MAX_TRANSACTIONS", 2)
    for number in range(2):
        router.add_agent(str(number), lambda message, source: None)
        router.expect(bytes([number]), lambda message, source: None)
    with pytest.raises(UsageError):
        router.add_agent("2", lambda message, source: None)
    with pytest.raises(UsageError):
        router.expect(b"2", lambda message, source: None)
