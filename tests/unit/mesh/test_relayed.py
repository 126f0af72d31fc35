"""Places beyond a relay, and what a relay is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.membership.relay_claims import CLAIM_SIZE, relay_claim
from dhtvpn.mesh import relay_wire as wire
from dhtvpn.mesh.relayed import Place, is_relayed, place_of, relayed

NUMBERS = st.integers(0, (1 << 32) - 1)
CLAIM, TOKEN, IDENTITY = bytes(range(16)), b"tokentok", b"idididi"


@given(NUMBERS, NUMBERS)
def test_a_place_comes_back_from_its_endpoint(via: int, peer: int) -> None:
    endpoint = relayed(via, peer)
    assert place_of(endpoint) == Place(via, peer) and is_relayed(endpoint)
    assert Endpoint.unpack(endpoint.pack()) == endpoint
    assert Endpoint.from_socket((endpoint.host, endpoint.port, 0, 0)) == endpoint


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "100:0:0:1::", "100::1:2:3:4:5", "100:1::"])
def test_an_address_is_no_place_beyond_a_relay(host: str) -> None:
    assert not is_relayed(Endpoint(host, 4690))
    assert not is_relayed(None)


@given(st.binary(max_size=40))
def test_what_a_stranger_says_is_decoded_or_refused(data: bytes) -> None:
    for decode in (wire.decode_service, wire.unwrap_handshake):
        try:
            decode(data)
        except DecodeError as error:
            assert error.reason in ("relay_length", "relay_kind")


MESSAGES = {
    wire.Register(CLAIM, TOKEN): "db01" + CLAIM.hex() + TOKEN.hex(),
    wire.Token(TOKEN): "db02" + TOKEN.hex(),
    wire.Registered(IDENTITY, 60): "db03" + IDENTITY.hex() + "003c",
    wire.Refused(IDENTITY): "db04" + IDENTITY.hex(),
    wire.NotHere(IDENTITY): "db05" + IDENTITY.hex(),
    wire.Stranger(): "db06",
}


@pytest.mark.parametrize(("message", "text"), MESSAGES.items())
def test_the_bytes_of_each_message(message: wire.Service, text: str) -> None:
    assert wire.encode_service(message).hex() == text
    assert wire.decode_service(bytes.fromhex(text)) == message
    assert len(text) // 2 <= wire.SERVICE_SIZE
    for wrong in (text + "00", text[:-2]):
        with pytest.raises(DecodeError):
            wire.decode_service(bytes.fromhex(wrong))


def test_headers() -> None:
    assert wire.data_header(IDENTITY).hex() == "d9" + IDENTITY.hex()
    wrapped = wire.wrap_handshake(IDENTITY, b"ownownO", b"\x01message")
    assert wrapped.hex() == "da" + IDENTITY.hex() + "00" + b"ownownO".hex() + b"\x01message".hex()
    assert wire.unwrap_handshake(wrapped) == (IDENTITY, b"ownownO", b"\x01message")


def test_claim_and_id() -> None:
    claim = relay_claim(bytes(32), 1, bytes(range(32)))
    assert claim.hex() == "ea8144be7010fe875c08ba87215deb6d"
    assert wire.relay_id(claim).hex() == "c4645e0de9e8fe"
    assert len(claim) == CLAIM_SIZE == wire.CLAIM_SIZE
    others = {relay_claim(bytes(32), epoch, key) for epoch in (1, 2) for key in (bytes(range(32)), bytes(32))}
    assert len(others | {relay_claim(b"\1" * 32, 1, bytes(32))}) == 5
