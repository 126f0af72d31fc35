"""Relay frames side by side: made of single ones and parted again, one step on, read from a block."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.errors import DecodeError
from dhtvpn.mesh.relay_wire import LEAST_STRIDE, MAX_IDS, MAX_MESSAGES, RelayRun, next_id, run_in, runs_of

IDS = st.lists(st.binary(min_size=7, max_size=7), max_size=MAX_IDS)
MESSAGES = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8)


def header(ids: list[bytes], mark: int = 0x20) -> bytes:
    return bytes((mark | len(ids),)) + b"".join(ids)


@given(ids=IDS, messages=MESSAGES)
def test_runs_hold_the_frames_in_order(ids: list[bytes], messages: list[bytes]) -> None:
    frames = [header(ids) + message for message in messages]
    runs = runs_of(frames)
    assert [frame for run in runs for frame in run.frames] == frames
    assert sum(run.count for run in runs) == len(frames)
    assert sum(run.octets for run in runs) == sum(map(len, frames))
    assert {run.onward for run in runs} == {next_id(frames[0])}


def test_equal_lengths_are_one_run_with_a_shorter_one_at_its_end() -> None:
    lengths = [50, 50, 50, 40, 40, 60, 60, 10]
    runs = runs_of([header([]) + bytes(length) for length in lengths])
    assert [(run.stride, len(run.messages)) for run in runs] == [(50, 190), (40, 40), (60, 130)]


@given(
    ids=IDS,
    size=st.integers(1, MAX_MESSAGES * LEAST_STRIDE),
    stride=st.integers(LEAST_STRIDE, 2000),
)
def test_a_block_holds_a_run_as_it_was(ids: list[bytes], size: int, stride: int) -> None:
    run = RelayRun(header(ids), bytes(n & 255 for n in range(size)), stride)
    assert run_in(memoryview(run.plaintext())) == run


def test_each_step_takes_one_id_away() -> None:
    run = RelayRun(header([b"a" * 7, b"b" * 7]), bytes(100), 40)
    assert run.onward == b"a" * 7
    assert run.one_step().header == header([b"b" * 7])
    assert run.one_step().one_step().header == header([])
    assert run.one_step().one_step().onward is None


def test_halves_are_cut_between_two_messages() -> None:
    messages = bytes(n & 255 for n in range(330))
    run = RelayRun(header([]), messages, 100)
    one, other = run.halves()
    assert one.frames + other.frames == run.frames
    assert (one.count, other.count) == (2, 2)


@pytest.mark.parametrize(
    ("plaintext", "reason"),
    [
        (b"", "relay_length"),
        (b"\0\0\x50\0", "relay_length"),
        (b"\0\0\x50\0\x20", "relay_length"),
        (b"\0\0\x50\0\x21" + b"a" * 7, "relay_length"),
        (b"\0\0\x50\0\x23" + b"a" * 10, "relay_length"),
        (b"\0\0\0\0\x20" + bytes(100), "relay_length"),
        (struct.pack("<HH", 0, LEAST_STRIDE - 1) + b"\x20" + bytes(100), "relay_length"),
        (
            struct.pack("<HH", 0, LEAST_STRIDE) + b"\x20" + bytes(MAX_MESSAGES * LEAST_STRIDE + 1),
            "relay_length",
        ),
        (b"\0\0\x50\0\x24" + bytes(100), "relay_hops"),
        (b"\0\0\x50\0\x30" + bytes(100), "relay_hops"),
        (b"\0\0\x50\0\x45" + bytes(100), "relay_hops"),
    ],
)
def test_what_is_no_run_is_refused(plaintext: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        run_in(memoryview(plaintext))


@given(st.binary(max_size=200))
def test_nothing_else_is_raised(noise: bytes) -> None:
    try:
        run = run_in(memoryview(noise))
    except DecodeError:
        return
    assert 0 < run.count <= MAX_MESSAGES
    assert len(run.header) <= len(noise)
