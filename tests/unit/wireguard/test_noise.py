"""The handshake: both sides agree, and every wrong input is refused with its own reason."""

import hashlib
from dataclasses import replace

import pytest

from dhtvpn.errors import DecodeError
from dhtvpn.wireguard import noise
from dhtvpn.wireguard.noise import LocalStatic, PendingInitiation, ReceivedInitiation

PSK = bytes(range(32))
STAMP = bytes(range(12))


def secret(name: str) -> bytes:
    return hashlib.blake2s(name.encode()).digest()


ALICE = LocalStatic.of(secret("alice"))
BOB = LocalStatic.of(secret("bob"))
STATIC_STATIC = noise.shared_secret(ALICE.private_key, BOB.public_key)


def begin() -> PendingInitiation:
    return noise.start(
        ALICE,
        BOB.public_key,
        STATIC_STATIC,
        sender=7,
        timestamp=STAMP,
        ephemeral_private=secret("ephemeral a"),
    )


def answered(pending: PendingInitiation, psk: bytes = PSK) -> tuple[noise.Response, noise.SessionKeys]:
    received = ReceivedInitiation(BOB, pending.message)
    assert received.static == ALICE.public_key
    assert received.open_timestamp(STATIC_STATIC) == STAMP
    return received.respond(psk, sender=9, ephemeral_private=secret("ephemeral b"))


def test_both_sides_have_the_same_keys_crosswise() -> None:
    pending = begin()
    response, theirs = answered(pending)
    ours = noise.finish(ALICE, pending, PSK, response)
    assert (ours.send_key, ours.receive_key) == (theirs.receive_key, theirs.send_key)
    assert ours.send_key != ours.receive_key


def test_another_preshared_key_is_refused_and_the_attempt_survives() -> None:
    pending = begin()
    response, _ = answered(pending, psk=bytes(32))
    with pytest.raises(DecodeError, match="response"):
        noise.finish(ALICE, pending, PSK, response)
    response, theirs = answered(pending)
    assert noise.finish(ALICE, pending, PSK, response).send_key == theirs.receive_key


def test_an_initiation_for_somebody_else_is_refused() -> None:
    with pytest.raises(DecodeError, match="static"):
        ReceivedInitiation(LocalStatic.of(secret("carol")), begin().message)


def test_an_initiation_in_anothers_name_is_refused() -> None:
    """Carol seals Alice's public key into an initiation, but does not have the private one."""
    carol = LocalStatic(secret("carol"), ALICE.public_key)
    shared = noise.shared_secret(carol.private_key, BOB.public_key)
    pending = noise.start(
        carol, BOB.public_key, shared, sender=7, timestamp=STAMP, ephemeral_private=secret("ephemeral c")
    )
    received = ReceivedInitiation(BOB, pending.message)
    assert received.static == ALICE.public_key
    with pytest.raises(DecodeError, match="timestamp"):
        received.open_timestamp(STATIC_STATIC)


def test_zero_points_are_refused_at_every_step() -> None:
    pending = begin()
    with pytest.raises(DecodeError, match="low_order"):
        ReceivedInitiation(BOB, replace(pending.message, ephemeral=bytes(32)))
    response, _ = answered(pending)
    with pytest.raises(DecodeError, match="low_order"):
        noise.finish(ALICE, pending, PSK, replace(response, ephemeral=bytes(32)))
    with pytest.raises(DecodeError, match="low_order"):
        noise.start(
            ALICE,
            bytes(32),
            STATIC_STATIC,
            sender=7,
            timestamp=STAMP,
            ephemeral_private=secret("ephemeral a"),
        )


def test_secrets_stay_out_of_repr() -> None:
    pending = begin()
    response, keys = answered(pending)
    shown = repr((ALICE, pending, keys, response))
    for value in (ALICE.private_key, pending.ephemeral_private, pending.chain, pending.hash, keys.send_key):
        assert repr(value) not in shown


def test_a_private_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        LocalStatic.of(b"short")
