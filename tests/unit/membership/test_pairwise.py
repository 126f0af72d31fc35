import re

import pytest

from dhtvpn.membership.pairwise import ice_credentials, tunnel_psk

LOW, HIGH = b"\1" * 32, b"\2" * 32
NONCE_LOW, NONCE_HIGH = b"l" * 16, b"h" * 16
SHARED = b"s" * 32


def test_psk_depends_on_secret_and_both_keys_but_not_on_their_order() -> None:
    psk = tunnel_psk(bytes(32), LOW, HIGH)
    assert len(psk) == 32
    assert tunnel_psk(bytes(32), HIGH, LOW) == psk
    others = {
        tunnel_psk(b"\1" * 32, LOW, HIGH),
        tunnel_psk(bytes(32), LOW, b"\3" * 32),
        tunnel_psk(bytes(32), b"\3" * 32, HIGH),
    }
    assert len(others) == 3
    assert psk not in others


def test_both_sides_have_mirrored_credentials_and_the_lower_key_controls() -> None:
    low = ice_credentials(SHARED, LOW, NONCE_LOW, HIGH, NONCE_HIGH)
    high = ice_credentials(SHARED, HIGH, NONCE_HIGH, LOW, NONCE_LOW)
    assert (low.own_ufrag, low.own_password) == (high.peer_ufrag, high.peer_password)
    assert (low.peer_ufrag, low.peer_password) == (high.own_ufrag, high.own_password)
    assert low.controlling
    assert not high.controlling
    assert low.own_ufrag != low.peer_ufrag
    assert low.own_password != low.peer_password


def test_credentials_are_ice_chars_of_legal_length() -> None:
    pair = ice_credentials(SHARED, LOW, NONCE_LOW, HIGH, NONCE_HIGH)
    for ufrag in (pair.own_ufrag, pair.peer_ufrag):
        assert re.fullmatch(r"[A-Za-z0-9+/]{4,256}", ufrag)
    for password in (pair.own_password, pair.peer_password):
        assert re.fullmatch(r"[A-Za-z0-9+/]{22,256}", password)


def test_every_input_changes_the_credentials() -> None:
    pairs = [
        ice_credentials(SHARED, LOW, NONCE_LOW, HIGH, NONCE_HIGH),
        ice_credentials(b"t" * 32, LOW, NONCE_LOW, HIGH, NONCE_HIGH),
        ice_credentials(SHARED, LOW, b"m" * 16, HIGH, NONCE_HIGH),
        ice_credentials(SHARED, LOW, NONCE_LOW, HIGH, b"i" * 16),
        ice_credentials(SHARED, b"\0" * 32, NONCE_LOW, HIGH, NONCE_HIGH),
        ice_credentials(SHARED, LOW, NONCE_LOW, b"\3" * 32, NONCE_HIGH),
    ]
    assert len({pair.own_ufrag for pair in pairs}) == len(pairs)
    assert len({pair.peer_password for pair in pairs}) == len(pairs)


def test_passwords_are_not_shown() -> None:
    pair = ice_credentials(SHARED, LOW, NONCE_LOW, HIGH, NONCE_HIGH)
    assert pair.own_password not in repr(pair)
    assert pair.peer_password not in repr(pair)


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="itself"):
        ice_credentials(SHARED, LOW, NONCE_LOW, LOW, NONCE_HIGH)
    with pytest.raises(ValueError, match="16 bytes"):
        ice_credentials(SHARED, LOW, b"", HIGH, NONCE_HIGH)
