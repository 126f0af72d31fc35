import json
import logging
import stat
from collections.abc import Callable
from pathlib import Path

import nacl.bindings
import pytest

from dhtvpn import files
from dhtvpn import identity as identities
from dhtvpn.errors import DamagedStateError, DecodeError, SystemRefusedError
from dhtvpn.identity import Identity

SMALL_ORDER_POINTS = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]
NOT_CANONICAL = "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"


def draw(seed: bytes) -> Callable[[int], bytes]:
    return lambda size: seed[:size]


def never(size: int) -> bytes:
    raise AssertionError("nothing is to be drawn")


@pytest.fixture
def identity() -> Identity:
    return Identity.from_seed(b"\x07" * 32)


def test_shows_its_short_id_only(identity: Identity) -> None:
    assert repr(identity) == f"Identity({identity.short_id})"
    assert identity.short_id == identities.short_id(identity.node_key)
    assert len(identity.short_id) == 8
    assert identity.short_id.islower()


def test_signature_is_verified(identity: Identity) -> None:
    signature = identity.sign(b"message")
    identities.verify(identity.node_key, b"message", signature)
    other = Identity.from_seed(b"\x08" * 32).node_key
    for node_key, message, candidate in [
        (identity.node_key, b"massage", signature),
        (other, b"message", signature),
        (identity.node_key, b"message", bytes(64)),
        (identity.node_key, b"message", signature[:-1]),
        (identity.node_key, b"message", signature + b"\0"),
        (identity.node_key[:-1], b"message", signature),
        (bytes(32), b"message", bytes(64)),
    ]:
        with pytest.raises(DecodeError) as caught:
            identities.verify(node_key, message, candidate)
        assert caught.value.reason == "signature"


def test_two_nodes_share_a_secret(identity: Identity) -> None:
    other = Identity.from_seed(b"\x08" * 32)
    assert identity.shared_secret(other.node_key) == other.shared_secret(identity.node_key)
    assert identities.tunnel_public_key(identity.node_key) == identity.tunnel_public_key


@pytest.mark.parametrize(
    "node_key",
    [
        *map(bytes.fromhex, SMALL_ORDER_POINTS),
        bytes.fromhex(NOT_CANONICAL),
        b"",
        bytes(31),
        bytes(33),
        b"\x02" + bytes(31),
        b"\xff" * 32,
    ],
)
def test_unusable_node_keys_are_refused(identity: Identity, node_key: bytes) -> None:
    for use in (identities.tunnel_public_key, identity.shared_secret):
        with pytest.raises(DecodeError) as caught:
            use(node_key)
        assert caught.value.reason == "node_key"


def test_a_key_with_a_small_order_part_is_refused(identity: Identity) -> None:
    small_order = bytes.fromhex(SMALL_ORDER_POINTS[-1])
    mixed = nacl.bindings.crypto_core_ed25519_add(identity.node_key, small_order)
    with pytest.raises(DecodeError) as caught:
        identities.tunnel_public_key(mixed)
    assert caught.value.reason == "node_key"


def test_is_drawn_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    made = identities.load_or_create(path, draw(b"\x09" * 32))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = identities.load_or_create(path, never)
    assert again.node_key == made.node_key == Identity.from_seed(b"\x09" * 32).node_key
    assert [file.name for file in tmp_path.iterdir()] == ["identity.json"]


def spoil(**changes: object) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(json.loads(content) | changes).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-9],
        lambda content: content.replace(b"0909", b"0908", 1),
        spoil(seed="09"),
        spoil(seed="zz" * 32),
        spoil(seed=None),
        spoil(node_key=None),
        spoil(node_key="00" * 32),
        spoil(version=2),
        spoil(kind="something else"),
    ],
)
def test_a_damaged_file_is_kept_and_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "identity.json"
    identities.load_or_create(path, draw(b"\x09" * 32))
    content = damage(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(DamagedStateError, match=str(path)) as caught:
        identities.load_or_create(path, never)
    assert path.read_bytes() == content
    copy = tmp_path / "identity.json.damaged"
    assert copy.read_bytes() == content
    assert str(copy) in str(caught.value)
    assert "0909" not in str(caught.value)


def test_a_damaged_file_on_a_full_disk_is_still_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "identity.json"
    path.write_bytes(b"{")

    def refuse(_: Path) -> Path:
        raise SystemRefusedError("no space")

    monkeypatch.setattr(files, "keep_copy", refuse)
    with pytest.raises(DamagedStateError, match="no copy could be made"):
        identities.load_or_create(path, never)
    assert path.read_bytes() == b"{"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemRefusedError):
        identities.load_or_create(tmp_path / "none" / "identity.json", draw(bytes(32)))


def test_a_file_that_others_could_read_is_made_private(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "identity.json"
    identities.load_or_create(path, draw(b"\x09" * 32))
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        identities.load_or_create(path, never)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "could be read by other users" in caplog.text
