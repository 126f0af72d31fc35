"""Data messages: sealed, opened once, padded, refused."""

import os

import pytest

from dhtvpn.errors import DecodeError
from dhtvpn.wireguard.constants import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES, TYPE_DATA, TYPE_DATA_AES
from dhtvpn.wireguard.keypair import Keypair
from dhtvpn.wireguard.transport import HEADER, OVERHEAD, PeerTransport, aes_key, receiver_index

KEYS = os.urandom(32), os.urandom(32)


def connected(mtu: int = 1420) -> tuple[PeerTransport, PeerTransport, list[int]]:
    """An initiator, a responder and the local indices that the responder reported as confirmed."""
    confirmed: list[int] = []
    ours, theirs = PeerTransport(mtu), PeerTransport(mtu, confirmed.append)
    ours.install(Keypair(1, 2, KEYS[0], KEYS[1], True, 0.0))
    theirs.install(Keypair(2, 1, KEYS[1], KEYS[0], False, 0.0))
    return ours, theirs, confirmed


def sealed(transport: PeerTransport, plaintext: bytes, now: float = 0.0) -> bytes:
    datagram = transport.seal(plaintext, now)
    assert datagram is not None
    return datagram


def refused(transport: PeerTransport, datagram: bytes, now: float = 0.0) -> str:
    with pytest.raises(DecodeError) as caught:
        transport.open(datagram, now)
    return caught.value.reason


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1404, 1405, 1419, 1420])
def test_a_packet_passes_with_its_padding(size: int) -> None:
    ours, theirs, _ = connected()
    plaintext = os.urandom(size)
    datagram = sealed(ours, plaintext)
    opened = theirs.open(datagram, 0.0)
    assert opened[:size] == plaintext
    assert not any(opened[size:])
    assert len(opened) == min(-(-size // 16) * 16, 1420)
    assert len(datagram) == len(opened) + OVERHEAD


def test_a_packet_above_the_mtu_is_not_padded() -> None:
    ours, theirs, _ = connected(mtu=100)
    assert theirs.open(sealed(ours, bytes(101)), 0.0) == bytes(101)


def test_a_memoryview_is_as_good_as_bytes() -> None:
    ours, theirs, _ = connected()
    packet = memoryview(bytearray(b"..a packet.."))[2:-2]
    datagram = memoryview(bytearray(sealed(ours, packet)))
    assert receiver_index(datagram) == 2
    assert theirs.open(datagram, 0.0).rstrip(b"\0") == b"a packet"


def test_each_datagram_opens_once_in_any_order() -> None:
    ours, theirs, _ = connected()
    datagrams = [sealed(ours, bytes([number])) for number in range(100)]
    for datagram in reversed(datagrams):
        theirs.open(datagram, 0.0)
    assert {refused(theirs, datagram) for datagram in datagrams} == {"data_replay"}


def test_the_responder_sends_only_after_the_initiator_has() -> None:
    ours, theirs, confirmed = connected()
    assert not theirs.ready(0.0)
    assert theirs.seal(b"too early", 0.0) is None
    theirs.open(sealed(ours, b""), 0.0)
    assert confirmed == [2]
    assert theirs.ready(0.0)
    assert ours.open(sealed(theirs, b""), 0.0) == b""
    theirs.open(sealed(ours, b""), 0.0)
    assert confirmed == [2]


def test_a_forgery_confirms_nothing() -> None:
    ours, theirs, confirmed = connected()
    datagram = bytearray(sealed(ours, b""))
    datagram[-1] ^= 1
    assert refused(theirs, bytes(datagram)) == "data_tag"
    assert confirmed == []
    assert not theirs.ready(0.0)


def test_a_forged_counter_does_not_move_the_window() -> None:
    ours, theirs, _ = connected()
    datagram = sealed(ours, b"first")
    assert refused(theirs, datagram[:8] + bytes([255] * 6 + [0, 0]) + datagram[16:]) == "data_tag"
    assert theirs.open(datagram, 0.0).startswith(b"first")


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "data_length"),
        (bytes(31), "data_length"),
        (b"\4\0\0\0\2\0\0\0" + bytes(23), "data_length"),
        (b"\1\0\0\0\2\0\0\0" + bytes(24), "data_type"),
        (b"\4\0\0\1\2\0\0\0" + bytes(24), "data_type"),
        (b"\4\0\0\0\3\0\0\0" + bytes(24), "data_index"),
        (b"\4\0\0\0\2\0\0\0" + bytes(24), "data_tag"),
        (b"\4\0\0\0\2\0\0\0" + bytes(25), "data_tag"),
    ],
)
def test_wrong_datagrams(datagram: bytes, reason: str) -> None:
    _, theirs, _ = connected()
    assert refused(theirs, datagram) == reason


def test_a_keypair_ends_after_180_s_on_both_sides() -> None:
    ours, theirs, _ = connected()
    datagram = sealed(ours, b"late", 179.9)
    assert ours.ready(179.9)
    assert not ours.ready(180.0)
    assert ours.seal(b"", 180.0) is None
    assert refused(theirs, datagram, 180.0) == "data_expired"
    assert theirs.open(datagram, 179.95).startswith(b"late")


def test_a_counter_is_never_used_past_the_limit() -> None:
    ours, theirs, _ = connected()
    session = ours._slots.current
    assert session is not None
    session.counter = REJECT_AFTER_MESSAGES - 1
    assert theirs.open(sealed(ours, b"last"), 0.0).startswith(b"last")
    assert ours.seal(b"one more", 0.0) is None
    assert not ours.ready(0.0)


def test_a_counter_is_never_used_twice() -> None:
    ours, _, _ = connected()
    assert len({sealed(ours, b"the same")[8:16] for _ in range(1000)}) == 1000


def test_rotation_keeps_what_is_on_its_way() -> None:
    ours, theirs, _ = connected()
    theirs.open(sealed(ours, b""), 0.0)
    late = sealed(ours, b"sealed with the old keypair")
    theirs.install(Keypair(4, 3, KEYS[0], KEYS[1], False, 1.0))
    assert sealed(theirs, b"")[4] == 1  # still the old one: the new one is not confirmed
    ours.install(Keypair(3, 4, KEYS[1], KEYS[0], True, 1.0))
    theirs.open(sealed(ours, b""), 1.0)
    assert sealed(theirs, b"")[4] == 3
    assert theirs.open(late, 1.0).startswith(b"sealed with the old")
    assert sorted(theirs.indices()) == [2, 4]
    ours.install(Keypair(5, 6, KEYS[1], KEYS[0], True, 2.0))
    assert ours.install(Keypair(7, 8, KEYS[1], KEYS[0], True, 3.0)) == [3]
    assert sorted(ours.indices()) == [5, 7]


def test_erased_keypairs_open_and_seal_nothing() -> None:
    ours, theirs, _ = connected()
    datagram = sealed(ours, b"")
    assert theirs.erase() == [2]
    assert refused(theirs, datagram) == "data_index"
    assert theirs.indices() == []


def test_receiver_index_of_other_datagrams() -> None:
    ours, _, _ = connected()
    assert receiver_index(sealed(ours, b"")) == 2
    assert receiver_index(b"\1\0\0\0" + bytes(144)) is None
    assert receiver_index(b"\4\0\0\0") is None


def test_both_types_share_counter_and_window() -> None:
    ours, theirs, _ = connected()
    datagrams = []
    for kind in (TYPE_DATA, TYPE_DATA_AES, TYPE_DATA_AES, TYPE_DATA):
        ours.message_type = kind
        datagrams.append(sealed(ours, b"packet"))
    assert [HEADER.unpack_from(datagram)[::2] for datagram in datagrams] == [(4, 0), (5, 1), (5, 2), (4, 3)]
    for datagram in datagrams:
        assert theirs.open(datagram, 0.0).rstrip(b"\0") == b"packet"
        assert refused(theirs, datagram) == "data_replay"
    # the same counter under the other type is spent as well
    twin = PeerTransport(1420)
    twin.install(Keypair(1, 2, KEYS[0], KEYS[1], True, 0.0))
    twin.message_type = TYPE_DATA_AES
    assert refused(theirs, sealed(twin, b"packet")) == "data_replay"


def test_the_types_have_keys_of_their_own() -> None:
    ours, theirs, _ = connected()
    for kind, other in ((TYPE_DATA, TYPE_DATA_AES), (TYPE_DATA_AES, TYPE_DATA)):
        ours.message_type = kind
        datagram = sealed(ours, b"packet")
        assert refused(theirs, bytes([other]) + datagram[1:]) == "data_tag"
    assert aes_key(KEYS[0]) not in KEYS
    assert len(aes_key(KEYS[0])) == 32


def test_the_first_message_may_be_of_either_type() -> None:
    for kind in (TYPE_DATA, TYPE_DATA_AES):
        ours, theirs, confirmed = connected()
        ours.message_type = kind
        theirs.open(sealed(ours, b""), 0.0)
        assert confirmed == [2]


def test_no_counter_is_reserved_twice() -> None:
    ours, theirs, _ = connected()
    session = ours.sending(0.0)
    assert session is not None
    first = session.reserve(5)
    assert HEADER.unpack_from(sealed(ours, b"x"))[2] == 5
    assert (first, session.reserve(1), session.counter) == (0, 6, 7)
    assert theirs.sending(0.0) is None  # not confirmed


def test_a_batch_that_does_not_fit_ends_the_keypair() -> None:
    ours, _, _ = connected()
    session = ours.sending(0.0)
    assert session is not None
    session.counter = REJECT_AFTER_MESSAGES - 3
    assert session.reserve(2) == REJECT_AFTER_MESSAGES - 3
    assert session.reserve(2) is None
    assert not ours.ready(0.0)
    assert ours.sending(0.0) is None
    assert ours.seal(b"x", 0.0) is None
    assert session.reserve(1) is None


def test_a_session_for_a_batch_expires_as_the_keypair_does() -> None:
    ours, theirs, _ = connected()
    theirs.open(sealed(ours, b""), 0.0)
    for transport, index in ((ours, 1), (theirs, 2)):
        assert transport.sending(179.9) is transport.receiving(index, 179.9)
        assert transport.sending(180.0) is None
        assert transport.receiving(index, 180.0) is None
        assert transport.receiving(77, 0.0) is None


def test_the_initiator_wants_new_keys_after_so_many_messages() -> None:
    ours, theirs, _ = connected()
    theirs.open(sealed(ours, b""), 0.0)
    for transport in (ours, theirs):
        session = transport.sending(0.0)
        assert session is not None and not transport.rekey_due()
        session.counter = REKEY_AFTER_MESSAGES - 1
        assert not transport.rekey_due()
        sealed(transport, b"one more")
    assert ours.rekey_due() and not theirs.rekey_due()
    assert ours.ready(0.0)  # old keys go on until there are new ones
