"""The codec of types 1 to 3."""

import pytest

from dhtvpn.errors import DecodeError
from dhtvpn.wireguard import messages
from dhtvpn.wireguard.messages import CookieReply, Initiation, Response

INITIATION = Initiation(1, bytes([1]) * 32, bytes([2]) * 48, bytes([3]) * 28)
RESPONSE = Response(1, 2, bytes([1]) * 32, bytes([2]) * 16)
COOKIE_REPLY = CookieReply(2, bytes([1]) * 24, bytes([2]) * 32)
MACS = bytes(32)


def test_sizes_are_the_papers() -> None:
    assert messages.SIZES == {1: 148, 2: 92, 3: 64}


@pytest.mark.parametrize(
    ("message", "datagram"),
    [
        (INITIATION, INITIATION.pack() + MACS),
        (RESPONSE, RESPONSE.pack() + MACS),
        (COOKIE_REPLY, COOKIE_REPLY.pack()),
    ],
)
def test_round_trip(message: Initiation | Response | CookieReply, datagram: bytes) -> None:
    assert type(message).unpack(datagram) == message
    assert len(datagram) == messages.SIZES[messages.message_type(datagram)]


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "length"),
        (b"\1\0\0", "length"),
        (b"\1\0\0\0", "length"),
        (INITIATION.pack() + MACS + b"\0", "length"),
        (b"\1\0\1\0" + bytes(144), "type"),
        (b"\0\0\0\0" + bytes(144), "type"),
        (b"\4\0\0\0" + bytes(28), "type"),
    ],
)
def test_wrong_datagrams(datagram: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        messages.message_type(datagram)
    assert caught.value.reason == reason


def test_a_message_of_another_type_is_refused() -> None:
    with pytest.raises(DecodeError, match="type"):
        Initiation.unpack(RESPONSE.pack() + MACS)


def test_sender_index_of_both_types() -> None:
    assert messages.sender_index(INITIATION.pack() + MACS) == 1
    assert messages.sender_index(RESPONSE.pack() + MACS) == 1
