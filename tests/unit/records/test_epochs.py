import pytest

from dhtvpn.records.epochs import (
    EPOCH_S,
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
        (2999.9, [483_000], [483_000, 482_999]),
        (3000, [483_000, 483_001], [483_000, 482_999, 483_001]),
        (3599.9, [483_000, 483_001], [483_000, 482_999, 483_001]),
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


def test_clocks_ten_minutes_apart_find_each_other_at_any_time() -> None:
    for into in range(0, EPOCH_S, 25):
        for skew in range(-OVERLAP_S, OVERLAP_S + 1, 50):
            published, looked_up = publish_epochs(START + into), lookup_epochs(START + into + skew)
            assert set(published) & set(looked_up), (into, skew)


def test_a_record_serves_until_its_topic_is_looked_up_no_more() -> None:
    expiry = expiry_of(483_000)
    assert 483_000 in lookup_epochs(expiry - 1)
    assert 483_000 not in lookup_epochs(expiry)


def test_next_change_is_when_the_published_epochs_change() -> None:
    for into in (0, 1.5, 2999, 3000, 3599.5):
        now = START + into
        wait = next_change(now)
        assert wait > 0
        assert publish_epochs(now + wait - 0.01) == publish_epochs(now)
        assert publish_epochs(now + wait) != publish_epochs(now)
