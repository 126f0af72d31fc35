import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import nacl.bindings
import pytest

from dhtvpn.errors import DecodeError
from dhtvpn.identity import Identity
from dhtvpn.records import envelope as envelopes
from dhtvpn.records import record as records
from dhtvpn.records import strict_cbor
from dhtvpn.records.envelope import MAX_ENVELOPE, MAX_LIFETIME_S, OpenedRecord, inspect, open_record, seal
from dhtvpn.records.epochs import expiry_of, publish_epochs
from dhtvpn.records.topic import Topic

SEQUENCE = 1_738_800_000_123


def reason(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(DecodeError) as caught:
        call(*arguments)
    return caught.value.reason


@pytest.fixture
def sealed(scene: Any) -> bytes:
    return seal(scene.record, scene.topic, scene.identity, SEQUENCE, scene.now + 3600, os.urandom)


def resigned(scene: Any, fields: list[Any]) -> bytes:
    """``fields`` with a topic signature that fits: what a hostile member can make."""
    place = envelopes.Envelope(*fields[1:]).place
    fields[6] = scene.topic.signing_key.sign(b"dhtvpn envelope v1\0" + place + fields[5]).signature
    return strict_cbor.encode(fields)


def resealed(scene: Any, sealed: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The envelope with another plaintext, by somebody who holds the network secret."""
    fields = strict_cbor.decode(sealed)
    place, nonce = envelopes.Envelope(*fields[1:]).place, fields[5][:24]
    key = scene.topic.sealing_key
    inner = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(fields[5][24:], place, nonce, key)
    altered = change(inner)
    assert len(altered) == len(inner)
    fields[5] = nonce + nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(altered, place, nonce, key)
    return resigned(scene, fields)


def test_a_member_reads_what_was_sealed(scene: Any, sealed: bytes) -> None:
    assert open_record(sealed, scene.topic, scene.now) == OpenedRecord(
        scene.record, SEQUENCE, scene.now + 3600
    )


def test_a_storing_node_sees_slot_sequence_and_expiry(scene: Any, sealed: bytes) -> None:
    found = inspect(sealed, scene.topic.dht_key, scene.now)
    assert found.slot == scene.topic.slot(scene.identity.node_key)
    shifted = SEQUENCE + scene.topic.sequence_shift(scene.identity.node_key)
    assert (found.sequence, found.expires) == (shifted, scene.now + 3600)
    assert found.topic_public_key == scene.topic.public_key


def test_nothing_inside_can_be_read_outside(scene: Any, sealed: bytes) -> None:
    for inside in (scene.identity.node_key, b"laptop", bytes([192, 0, 2, 7]), scene.record.session_nonce):
        assert inside not in sealed


def test_every_envelope_has_a_nonce_of_its_own(scene: Any, sealed: bytes) -> None:
    again = seal(scene.record, scene.topic, scene.identity, SEQUENCE, scene.now + 3600, os.urandom)
    assert strict_cbor.decode(again)[5] != strict_cbor.decode(sealed)[5]


def test_names_and_candidates_do_not_show_in_the_size(scene: Any, sealed: bytes) -> None:
    for name in ("a", "b" * 40):
        for number in range(4):
            other = replace(scene.record, name=name, candidates=scene.record.candidates[:number])
            size = len(seal(other, scene.topic, scene.identity, SEQUENCE, scene.now + 3600, os.urandom))
            assert size == len(sealed)


def test_oversize(scene: Any, sealed: bytes) -> None:
    assert reason(inspect, bytes(MAX_ENVELOPE + 1), scene.topic.dht_key, scene.now) == "size"


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, 2),
        (0, True),
        (1, bytes(31)),
        (2, bytes(15)),
        (2, "s" * 16),
        (3, b"\1"),
        (3, False),
        (4, [1]),
        (5, bytes(295)),
        (5, b""),
        (6, bytes(63)),
    ],
)
def test_a_field_out_of_shape(scene: Any, sealed: bytes, index: int, value: Any) -> None:
    fields = strict_cbor.decode(sealed)
    fields[index] = value
    assert reason(inspect, strict_cbor.encode(fields), scene.topic.dht_key, scene.now) == "format"


def test_more_or_fewer_fields(scene: Any, sealed: bytes) -> None:
    fields = strict_cbor.decode(sealed)
    for other in ([], fields[:-1], [*fields, 0]):
        assert reason(inspect, strict_cbor.encode(other), scene.topic.dht_key, scene.now) == "format"


def test_a_foreign_topic(scene: Any, sealed: bytes) -> None:
    other = Topic.derive(b"\2" * 32, scene.topic.epoch + 1)
    assert reason(inspect, sealed, other.dht_key, scene.now) == "topic"
    assert reason(inspect, sealed, b"", scene.now) == "topic"
    assert reason(open_record, sealed, other, scene.now) == "topic"


def test_expiry_and_horizon(scene: Any, sealed: bytes) -> None:
    key, expires = scene.topic.dht_key, scene.now + 3600
    inspect(sealed, key, expires - 0.5)
    assert reason(inspect, sealed, key, expires) == "expired"
    inspect(sealed, key, expires - MAX_LIFETIME_S)
    assert reason(inspect, sealed, key, expires - MAX_LIFETIME_S - 1) == "horizon"


def test_the_latest_useful_expiry_is_inside_the_horizon(scene: Any) -> None:
    for into in (0, 2999, 3000, 3599):
        now = scene.now + into
        for epoch in publish_epochs(now):
            topic = Topic.derive(b"\2" * 32, epoch)
            sealed = seal(scene.record, topic, scene.identity, 1, expiry_of(epoch), os.urandom)
            for skew in (-600, 600):
                inspect(sealed, topic.dht_key, now + skew)


def test_moved_in_time_place_or_content(scene: Any, sealed: bytes) -> None:
    for index, value in [(2, bytes(16)), (3, SEQUENCE + 1), (4, scene.now + 3601), (5, bytes(296))]:
        fields = strict_cbor.decode(sealed)
        fields[index] = value
        altered = strict_cbor.encode(fields)
        assert reason(inspect, altered, scene.topic.dht_key, scene.now) in ("signature", "format")


def test_a_member_cannot_alter_what_another_has_sealed(scene: Any, sealed: bytes) -> None:
    for index, value in [(2, bytes(16)), (3, SEQUENCE + 1), (4, scene.now + 3601)]:
        fields = strict_cbor.decode(sealed)
        fields[index] = value
        altered = resigned(scene, fields)
        inspect(altered, scene.topic.dht_key, scene.now)
        assert reason(open_record, altered, scene.topic, scene.now) == "seal"


def test_a_member_cannot_speak_for_another(scene: Any) -> None:
    mallory = Identity.from_seed(b"\6" * 32)
    assert mallory.node_key != scene.identity.node_key

    class Pretender(Identity):
        def sign(self, message: bytes) -> bytes:
            return mallory.sign(message)

    pretender = Pretender.from_seed(b"\1" * 32)
    forged = seal(scene.record, scene.topic, pretender, SEQUENCE, scene.now + 60, os.urandom)
    assert reason(open_record, forged, scene.topic, scene.now) == "member_signature"


def test_a_member_cannot_use_another_slot(scene: Any, sealed: bytes) -> None:
    mallory = Identity.from_seed(b"\6" * 32)
    content = records.encode(replace(scene.record, node_key=mallory.node_key))
    place = inspect(sealed, scene.topic.dht_key, scene.now).place
    inner = len(content).to_bytes(2) + mallory.sign(b"dhtvpn record v1\0" + place + content) + content
    forged = resealed(scene, sealed, lambda old: inner.ljust(len(old), b"\0"))
    assert reason(open_record, forged, scene.topic, scene.now) == "slot"


@pytest.mark.parametrize(
    ("what", "change", "expected"),
    [
        ("length past the end", lambda inner: b"\xff\xff" + inner[2:], "format"),
        ("length of nothing", lambda inner: b"\0\0" + inner[2:], "format"),
        ("length too short", lambda inner: inner[:1] + bytes([inner[1] - 1]) + inner[2:], "format"),
        ("padding not zero", lambda inner: inner[:-1] + b"\1", "format"),
        ("signature altered", lambda inner: inner[:2] + bytes(64) + inner[66:], "member_signature"),
        ("all zero", lambda inner: bytes(len(inner)), "format"),
        ("garbage", lambda inner: b"\xa5" * len(inner), "format"),
    ],
)
def test_garbage_from_a_member(
    scene: Any, sealed: bytes, what: str, change: Callable[[bytes], bytes], expected: str
) -> None:
    assert reason(open_record, resealed(scene, sealed, change), scene.topic, scene.now) == expected, what


def test_misuse_of_seal(scene: Any) -> None:
    other = Identity.from_seed(b"\6" * 32)
    with pytest.raises(ValueError, match="own record"):
        seal(scene.record, scene.topic, other, 1, scene.now, os.urandom)
    for sequence, expires in ((-1, 1), (1 << 63, 1), (1, -1), (1, 1 << 64)):
        with pytest.raises(ValueError, match="63 bits"):
            seal(scene.record, scene.topic, scene.identity, sequence, expires, os.urandom)


def test_the_largest_record_has_a_bucket() -> None:
    overhead = envelopes._INNER.size
    assert overhead + records.MAX_RECORD <= max(envelopes.BUCKETS)
