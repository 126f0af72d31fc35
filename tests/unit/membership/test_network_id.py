import random
from ipaddress import IPv4Network

import pytest
from nacl.signing import SigningKey

from dhtvpn.errors import InvalidNetworkIdError, UsageError
from dhtvpn.membership.network_id import MAX_LENGTH, Mode, NetworkId, create, parse_ipv4

OPEN = NetworkId(Mode.OPEN, bytes(range(32)), bytes(range(32, 64)))
WITH_IPV4 = NetworkId(Mode.INVITE, bytes(range(32)), bytes(range(32, 64)), IPv4Network("10.77.0.0/16"))


def sentence(text: str) -> str:
    with pytest.raises(InvalidNetworkIdError) as caught:
        NetworkId.decode(text)
    return str(caught.value)


def replaced(word: str, position: int, character: str) -> str:
    return word[: position - 1] + character + word[position:]


@pytest.mark.parametrize(("network_id", "length"), [(OPEN, 114), (WITH_IPV4, MAX_LENGTH)])
def test_is_one_word_that_survives_copying(network_id: NetworkId, length: int) -> None:
    word = network_id.encode()
    assert len(word) == length
    assert word.isalnum()
    assert word.startswith("dv1")
    for text in (word, word.upper(), f"  {word}\r\n"):
        assert NetworkId.decode(text) == network_id


def test_shows_nothing_of_the_secret() -> None:
    secret_ways = (OPEN.secret.hex(), repr(OPEN.secret)[2:-1], OPEN.encode()[60:])
    for shown in (repr(OPEN), str(OPEN), OPEN.short):
        assert not any(way in shown for way in secret_ways)
    assert OPEN.short == "dv1-aaaqeaye"


def test_create_draws_key_and_secret() -> None:
    drawn = random.Random(1)
    network_id, seed = create(drawn.randbytes, ipv4="10.77.0.0/16")
    again = random.Random(1)
    assert (seed, network_id.secret) == (again.randbytes(32), again.randbytes(32))
    assert network_id.public_key == bytes(SigningKey(seed).verify_key)
    assert network_id.ipv4 == IPv4Network("10.77.0.0/16")
    assert network_id.mode is Mode.OPEN
    assert create(drawn.randbytes, Mode.INVITE)[0].ipv4 is None


@pytest.mark.parametrize(
    ("character", "said"),
    [
        ("0", "the 17th character '0' (a digit)"),
        ("1", "the 17th character '1' (a digit)"),
        ("-", "the 17th character '-' (a sign)"),
        ("=", "the 17th character '=' (a sign)"),
        ("é", "the 17th character 'é' (a letter)"),
        ("\u212a", "the 17th character '\u212a' (a letter)"),
        (" ", "the 17th character (white space)"),
        ("\n", "the 17th character (white space)"),
        ("\u200b", "the 17th character U+200B (zero width space)"),
        ("\0", "the 17th character U+0000 (invisible)"),
    ],
)
def test_names_a_wrong_character_its_class_and_its_place(character: str, said: str) -> None:
    message = sentence(replaced(OPEN.encode(), 17, character))
    assert f"{said} cannot occur in a network-id (only letters a-z and digits 2-7)" in message


@pytest.mark.parametrize(
    ("position", "ordinal"), [(4, "4th"), (21, "21st"), (22, "22nd"), (23, "23rd"), (111, "111th")]
)
def test_counts_from_the_start_of_the_word(position: int, ordinal: str) -> None:
    assert f"the {ordinal} character" in sentence("\t " + replaced(OPEN.encode(), position, "8"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("  \n", "it is empty"),
        ("home", "it does not start with dv1"),
        ("dv", "it does not start with dv1"),
        ("dw1" + OPEN.encode()[3:], "it does not start with dv1"),
        ("dv2" + OPEN.encode()[3:], "version dv2 is not known to this program: update dhtvpn"),
        ("dv1", "it is 111 characters short"),
        ("dv1a", "it is 110 characters short"),
        (OPEN.encode()[:-1], "it is 1 character short"),
        (OPEN.encode()[:-3], "it is 3 characters short"),
        (OPEN.encode() + "a", "it is 1 character too long"),
        (OPEN.encode() * 2, "the 117th character '1' (a digit) cannot occur"),
        (WITH_IPV4.encode()[:-2], "it is 2 characters short"),
        (WITH_IPV4.encode() + "aaaa", "it is 4 characters too long"),
        ("dv1" + "a" * 1_000_000, "it is 999889 characters too long"),
    ],
)
def test_says_which_rule_is_broken(text: str, said: str) -> None:
    assert said in sentence(text)


def test_every_single_wrong_character_and_swap_fails_the_checksum() -> None:
    word = OPEN.encode()
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    for position in range(6, len(word) + 1):
        for character in alphabet:
            if character != word[position - 1]:
                assert "checksum does not fit" in sentence(replaced(word, position, character))
        swapped = word[: position - 2] + word[position - 1] + word[position - 2] + word[position:]
        assert swapped == word or "checksum does not fit" in sentence(swapped)


def test_unknown_mode_and_unusable_network_are_refused_though_the_checksum_fits() -> None:
    class Later:
        value = 5

    later = NetworkId(Mode.OPEN, OPEN.public_key, OPEN.secret)
    object.__setattr__(later, "mode", Later)
    assert "mode 5 is not known to this program: update dhtvpn" in sentence(later.encode())
    for network in ("8.8.0.0/16", "10.0.0.0/30", "0.0.0.0/1"):
        public = NetworkId(Mode.OPEN, OPEN.public_key, OPEN.secret)
        object.__setattr__(public, "ipv4", IPv4Network(network))
        assert "IPv4 network that cannot be used" in sentence(public.encode())


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0/8", "10.77.0.0/16", "172.16.0.0/12", "172.31.255.248/29", "192.168.0.0/16", "100.64.0.0/10"],
)
def test_private_and_shared_space_is_allowed(text: str) -> None:
    assert str(parse_ipv4(text)) == text
    network_id, _ = create(random.Random(2).randbytes, ipv4=text)
    assert NetworkId.decode(network_id.encode()).ipv4 == IPv4Network(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8.8.0.0/16", "is not private address space"),
        ("192.168.0.0/15", "is not private address space"),
        ("127.0.0.0/8", "is not private address space"),
        ("169.254.0.0/16", "is not private address space"),
        ("10.0.0.0/7", "from 8 to 29"),
        ("10.0.0.0/30", "from 8 to 29"),
        ("10.0.0.1", "from 8 to 29"),
        ("10.77.3.4/16", "did you mean 10.77.0.0/16?"),
        ("fd00::/64", "is not an IPv4 network"),
        ("banana", "is not an IPv4 network"),
        ("", "is not an IPv4 network"),
        ("10.0.0.0/33", "is not an IPv4 network"),
    ],
)
def test_other_space_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        create(random.Random(3).randbytes, ipv4=text)


def test_keys_of_another_size_are_refused() -> None:
    with pytest.raises(UsageError):
        NetworkId(Mode.OPEN, bytes(31), bytes(32))
    with pytest.raises(UsageError):
        NetworkId(Mode.OPEN, bytes(32), bytes(33))
