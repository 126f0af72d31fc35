"""Time stamps: their order is that of their bytes, and a stamper never goes back."""

import pytest

from dhtvpn.wireguard import tai64n


def test_order_of_bytes_is_order_of_time() -> None:
    times = [-(10**9), 0, 1, 999_999_999, 10**9, 1_700_000_000 * 10**9, 1 << 62]
    assert sorted(times) == times
    stamps = [tai64n.encode(time) for time in times]
    assert sorted(stamps) == stamps


def test_stamps_increase_whatever_the_clock_does() -> None:
    stamper = tai64n.Stamper()
    stamps = [stamper.stamp(time) for time in (100.0, 100.0, 100.001, 50.0, 0.0, 100.5, -3.0)]
    assert stamps == sorted(set(stamps))


def test_a_stamp_shows_the_clock_coarsely() -> None:
    stamp = tai64n.decode(tai64n.Stamper().stamp(1_700_000_000.123456))
    assert stamp % (1 << 24) == 0
    assert 0 <= 1_700_000_000_123_456_000 - stamp < 1 << 24


def test_absurd_clocks_do_not_raise() -> None:
    assert len(tai64n.encode(-(1 << 100))) == 12
    assert len(tai64n.encode(1 << 100)) == 12


def test_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        tai64n.decode(b"short")
