from ipaddress import IPv4Network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dhtvpn.errors import InvalidNetworkIdError
from dhtvpn.membership.network_id import IPV4_SPACES, MAX_LENGTH, Mode, NetworkId

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
keys = st.binary(min_size=32, max_size=32)


@st.composite
def ipv4_networks(draw: st.DrawFn) -> IPv4Network:
    space = draw(st.sampled_from(IPV4_SPACES))
    prefix_length = draw(st.integers(space.prefixlen, 29))
    offset = draw(st.integers(0, space.num_addresses - 1))
    return IPv4Network((int(space.network_address) + offset, prefix_length), strict=False)


network_ids = st.builds(NetworkId, st.sampled_from(Mode), keys, keys, st.none() | ipv4_networks())
words = network_ids.map(NetworkId.encode)


def refused(text: str) -> bool:
    with pytest.raises(InvalidNetworkIdError) as caught:
        NetworkId.decode(text)
    return len(str(caught.value)) < 300


@given(network_ids)
def test_round_trip(network_id: NetworkId) -> None:
    word = network_id.encode()
    assert len(word) <= MAX_LENGTH
    assert NetworkId.decode(word) == network_id
    assert NetworkId.decode(f"\n{word.upper()} ") == network_id


@given(words, st.data())
def test_any_other_character_anywhere_is_noticed(word: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(word) - 1))
    character = data.draw(st.characters() | st.sampled_from(ALPHABET))
    altered = word[:position] + character + word[position + 1 :]
    assume(altered.strip().lower() != word)
    assert refused(altered)


@given(words, st.data())
def test_any_swap_of_neighbours_is_noticed(word: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(word) - 2))
    assume(word[position] != word[position + 1])
    swapped = word[:position] + word[position + 1] + word[position] + word[position + 2 :]
    assert refused(swapped)


@given(words, st.data())
def test_any_change_of_five_neighbours_is_noticed(word: str, data: st.DataObject) -> None:
    position = data.draw(st.integers(3, len(word) - 5))
    other = data.draw(st.text(ALPHABET, min_size=5, max_size=5))
    assume(word[position : position + 5] != other)
    assert refused(word[:position] + other + word[position + 5 :])


@given(words, st.data())
def test_any_cut_is_noticed(word: str, data: st.DataObject) -> None:
    assert refused(word[: data.draw(st.integers(0, len(word) - 1))])


@given(
    st.text() | st.text(ALPHABET).map(lambda text: "dv1" + text) | st.text().map(lambda text: "dv1" + text)
)
def test_no_text_does_anything_else(text: str) -> None:
    assert refused(text)


@given(st.text(ALPHABET, min_size=111, max_size=111) | st.text(ALPHABET, min_size=117, max_size=117))
def test_no_word_of_the_right_length_does_anything_else(body: str) -> None:
    assert refused("dv1" + body)
