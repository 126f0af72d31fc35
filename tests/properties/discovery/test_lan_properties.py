"""Hypothesis: notes round-trip and always fit; no datagram, sealed by a member or not, raises."""

import asyncio
import os
import random

import pytest
from discovery_simulation import run
from hypothesis import example, given
from hypothesis import strategies as st
from simulated_lan import SECRET, SimulatedLan

from dhtvpn.discovery import lan_wire
from dhtvpn.discovery.lan_wire import DATAGRAM_SIZE, PLAINTEXT_SIZE, epoch_key, pack, seal, unseal
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.records.epochs import epoch_at

KEY = epoch_key(SECRET, 1)
SOURCE = Endpoint("10.77.0.66", 14690)
topics = st.binary(min_size=20, max_size=20)
slots = st.binary(min_size=16, max_size=16)
numbers = st.integers(0, (1 << 64) - 1)
told = st.lists(st.tuples(topics, st.binary(min_size=1, max_size=900)), max_size=12)


@given(numbers, st.lists(topics, max_size=20), st.lists(st.tuples(slots, numbers), max_size=50), told)
def test_everything_is_packed_and_comes_out_again(unix_time, asked, known, envelopes):
    notes = pack(unix_time, asked, known, envelopes)
    assert [topic for note in notes for topic in note.asked] == asked
    assert [entry for note in notes for entry in note.envelopes] == envelopes
    assert all(set(note.known) <= set(known) for note in notes)
    for note in notes:
        datagram = seal(note, KEY, os.urandom)
        assert len(datagram) == DATAGRAM_SIZE
        assert unseal(datagram, [KEY]) == note


@given(st.one_of(st.binary(max_size=1300), st.binary(min_size=DATAGRAM_SIZE, max_size=DATAGRAM_SIZE)))
def test_what_is_not_sealed_by_a_member_is_refused(datagram):
    with pytest.raises(DecodeError) as caught:
        unseal(datagram, [KEY])
    assert caught.value.reason == ("seal" if len(datagram) == DATAGRAM_SIZE else "size")


@given(st.binary(min_size=1, max_size=PLAINTEXT_SIZE), st.integers(0, 2**32))
@example(bytes([1]) + bytes(8) + bytes([255]), 0)
@example(bytes([1]) + bytes(8) + bytes([0, 255]), 0)
@example(bytes([1]) + bytes(8) + bytes([0, 0, 1]) + bytes(20) + b"\xff\xff", 0)
@example(bytes([1]) + bytes(8) + bytes([0, 0, 0, 1]), 0)
@example(bytes([2]), 0)
def test_what_a_hostile_member_seals_does_not_raise(plaintext, seed):
    async def scenario():
        lan = SimulatedLan()
        node = await lan.machine(1)
        key = epoch_key(SECRET, epoch_at(lan.unix_time()))
        raw = plaintext + bytes(PLAINTEXT_SIZE - len(plaintext))
        nonce = random.Random(seed).randbytes(24)
        sealed = lan_wire.crypto_aead_xchacha20poly1305_ietf_encrypt(raw, None, nonce, key)
        before = len(lan.sent)
        node.handle_datagram(nonce + sealed, SOURCE)
        await asyncio.sleep(5)
        assert len(lan.sent) == before, "it publishes nothing, so it has nothing to say"
        await lan.close()

    run(scenario())
