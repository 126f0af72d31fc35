"""When: time is cut into epochs of one hour, and each epoch has topics of its own.

A node *writes* in the current epoch, and in the next one too from ten minutes before it starts. It *reads*
the current epoch, the previous one as long as a member whose clock is ten minutes behind may still write
there, and the next one as soon as a member whose clock is ten minutes ahead may write there. So members
whose clocks differ by up to ten minutes find each other at any time: whatever the current epoch of one of
them is, the other reads it.
"""

EPOCH_S = 3600
OVERLAP_S = 600
"""How long before an epoch its records are published, and how far two clocks may be apart."""

MARGIN_S = 60
"""Readers begin this much earlier and end this much later than the clocks make necessary: a publication
takes a moment, and a timer may be late."""

_READ_AROUND_S = OVERLAP_S + MARGIN_S


def epoch_at(unix_time: float) -> int:
    """The number of the epoch that ``unix_time`` falls into, counted from 1970."""
    return int(unix_time // EPOCH_S)


def publish_epochs(unix_time: float) -> list[int]:
    """The epochs under which a node publishes now, the current one first."""
    epoch = epoch_at(unix_time)
    return [epoch, epoch + 1] if unix_time % EPOCH_S >= EPOCH_S - OVERLAP_S else [epoch]


def lookup_epochs(unix_time: float) -> list[int]:
    """The epochs in which a node looks for others now, the most likely first."""
    epoch, into = epoch_at(unix_time), unix_time % EPOCH_S
    if into < _READ_AROUND_S:
        return [epoch, epoch - 1]
    return [epoch, epoch + 1] if into >= EPOCH_S - _READ_AROUND_S else [epoch]


def expiry_of(epoch: int) -> int:
    """The expiry (unix seconds) of every record published under ``epoch``: when the last reader, whose
    clock may be ten minutes behind the writer's, has turned to the next one. The same for all writers,
    so that it says nothing about any of them."""
    return (epoch + 1) * EPOCH_S + OVERLAP_S + _READ_AROUND_S


def next_change(unix_time: float) -> float:
    """Seconds until ``publish_epochs`` or ``lookup_epochs`` gives another answer than now; positive."""
    into = unix_time % EPOCH_S
    boundaries = (_READ_AROUND_S, EPOCH_S - _READ_AROUND_S, EPOCH_S - OVERLAP_S, EPOCH_S)
    return next(boundary - into for boundary in boundaries if boundary > into)
