"""The primitives against published vectors: a wrong library or a wrong call shows here first."""

import hashlib

import pytest
from nacl import bindings

from dhtvpn.errors import DecodeError
from dhtvpn.wireguard import noise, tai64n
from dhtvpn.wireguard.cookie import mac

SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
AEAD_KEY = bytes(range(0x80, 0xA0))
AEAD_DATA = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")


def test_blake2s_rfc7693_appendix_b() -> None:
    expected = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
    assert noise.blake2s(b"a", b"b", b"c").hex() == expected


def test_keyed_blake2s_is_the_hash_of_the_padded_key_then_the_data() -> None:
    """RFC 7693 section 2.9 defines keyed hashing; the reference KAT file's entry 0 (key 00..1f, no input)."""
    key = bytes(range(32))
    expected = "48a8997da407876b3d79c0d92325ad3b89cbb754d86ab71aee047ad345fd2c49"
    assert hashlib.blake2s(b"", key=key).hexdigest() == expected
    assert mac(key, b"") == hashlib.blake2s(b"", key=key, digest_size=16).digest()


def test_hmac_blake2s_by_its_definition() -> None:
    """RFC 2104 written out: H((K ^ opad) || H((K ^ ipad) || text)), block size 64."""
    key, text = bytes(range(32)), b"text to be authenticated"
    block = key + bytes(32)
    inner = hashlib.blake2s(bytes(byte ^ 0x36 for byte in block) + text).digest()
    expected = hashlib.blake2s(bytes(byte ^ 0x5C for byte in block) + inner).digest()
    assert noise.hmac_blake2s(key, text) == expected


def test_kdf_vectors_of_wireguard() -> None:
    """What implementations of WireGuard test their KDF with: key "test-key", input "test-input"."""
    outputs = noise.kdf(b"test-key", b"test-input", 3)
    assert [output.hex() for output in outputs] == [
        "6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633",
        "df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a",
        "fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24",
    ]


def test_initial_chain_and_hash() -> None:
    """Section 5.4.2: C := Hash(CONSTRUCTION), H := Hash(C || IDENTIFIER)."""
    assert noise.INITIAL_CHAIN.hex() == "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36"
    assert noise.INITIAL_HASH.hex() == "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3"


def test_chacha20_poly1305_rfc8439_section_2_8_2() -> None:
    nonce = bytes.fromhex("070000004041424344454647")
    sealed = bindings.crypto_aead_chacha20poly1305_ietf_encrypt(SUNSCREEN, AEAD_DATA, nonce, AEAD_KEY)
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


def test_xchacha20_poly1305_draft_irtf_cfrg_xchacha_a_3_1() -> None:
    nonce = bytes(range(0x40, 0x58))
    sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(SUNSCREEN, AEAD_DATA, nonce, AEAD_KEY)
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"


def test_x25519_rfc7748_section_5_2() -> None:
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    expected = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert noise.shared_secret(scalar, point).hex() == expected


@pytest.mark.parametrize(
    "point",
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ],
)
def test_points_of_small_order_are_refused(point: str) -> None:
    """RFC 7748 section 6.1: the all-zero result must be noticed."""
    with pytest.raises(DecodeError, match="low_order"):
        noise.shared_secret(bytes(range(32)), bytes.fromhex(point))


@pytest.mark.parametrize(
    ("unix_seconds", "stamp"),
    [
        (0, "400000000000000a00000000"),
        (1_000_000_000, "400000003b9aca0a00000000"),
        (-10, "400000000000000000000000"),
    ],
)
def test_tai64n(unix_seconds: int, stamp: str) -> None:
    """https://cr.yp.to/libtai/tai64.html: 2^62 labels the beginning of 1970 TAI."""
    assert tai64n.encode(unix_seconds * 10**9).hex() == stamp
    assert tai64n.decode(bytes.fromhex(stamp)) == unix_seconds * 10**9
