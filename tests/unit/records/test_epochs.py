import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.records.envelope import MAX_LIFETIME_S
from dhtvpn.records.epochs import (
    EPOCH_S,
    MARGIN_S,
    OVERLAP_S,
    epoch_at,
    expiry_of,
    lookup_epochs,
    next_change,
    publish_epochs,
)

START = 483_000 * EPOCH_S


@pytest.mark.parametrize(
    ("into", "published", "looked_up"),
    [
        (0, [483_000], [483_000, 482_999]),
        (659.9, [483_000], [483_000, 482_999]),
        (660, [483_000], [483_000]),
        (2939.9, [483_000], [483_000]),
        (2940, [483_000], [483_000, 483_001]),
        (2999.9, [483_000], [483_000, 483_001]),
        (3000, [483_000, 483_001], [483_000, 483_001]),
        (3599.9, [483_000, 483_001], [483_000, 483_001]),
        (3600, [483_001], [483_001, 483_000]),
    ],
)
def test_the_next_epoch_counts_from_ten_minutes_before(
    into: float, published: list[int], looked_up: list[int]
) -> None:
    assert publish_epochs(START + into) == published
    assert lookup_epochs(START + into) == looked_up


def test_epochs_are_hours_since_1970() -> None:
    assert epoch_at(0) == 0
    assert epoch_at(3599.999) == 0
    assert epoch_at(3600) == 1


@given(
    st.floats(0, EPOCH_S, exclude_max=True),
    st.floats(-OVERLAP_S, OVERLAP_S),
    st.floats(-MARGIN_S / 2, MARGIN_S / 2),
)
def test_what_one_clock_writes_in_another_reads(into: float, skew: float, late: float) -> None:
    """Whatever the writer's current epoch is, a reader within ten minutes reads it, also a moment sooner
    or later."""
    assert epoch_at(START + into) in lookup_epochs(START + into + skew + late)


@given(st.floats(-OVERLAP_S, OVERLAP_S), st.floats(-OVERLAP_S, OVERLAP_S))
def test_a_record_serves_until_its_topic_is_looked_up_no_more(reader: float, storing: float) -> None:
    """Neither the last reader's clock nor a storing node's ends it too soon, or refuses it at first."""
    expiry = expiry_of(483_000)
    last_read = START + EPOCH_S + OVERLAP_S + MARGIN_S + max(reader, 0)
    assert expiry >= last_read
    first_written = START - OVERLAP_S
    assert expiry <= first_written + storing + MAX_LIFETIME_S


def test_next_change_is_when_the_epochs_change() -> None:
    def answer(now: float) -> tuple[list[int], list[int]]:
        return publish_epochs(now), lookup_epochs(now)

    for into in (0, 1.5, 659, 660, 2000, 2999, 3000, 3599.5):
        now = START + into
        wait = next_change(now)
        assert wait > 0
        assert answer(now + wait - 0.01) == answer(now)
        assert answer(now + wait) != answer(now)
