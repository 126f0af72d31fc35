"""When: time is cut into epochs of one hour, and each epoch has topics of its own.

Records are published in the current epoch, and in the next one from ten minutes before it starts;
they are looked up in the current, the previous and, from the same moment on, the next one. So members
whose clocks differ by up to ten minutes always have an epoch in common.
"""

EPOCH_S = 3600
OVERLAP_S = 600
"""How long before an epoch its records are published, and how far two clocks may be apart."""


def epoch_at(unix_time: float) -> int:
    """The number of the epoch that ``unix_time`` falls into, counted from 1970."""
    return int(unix_time // EPOCH_S)


def publish_epochs(unix_time: float) -> list[int]:
    """The epochs under which a node publishes now, the current one first."""
    epoch = epoch_at(unix_time)
    return [epoch, epoch + 1] if _next_is_near(unix_time) else [epoch]


def lookup_epochs(unix_time: float) -> list[int]:
    """The epochs in which a node looks for others now, the most likely first."""
    epoch = epoch_at(unix_time)
    return [epoch, epoch - 1, epoch + 1] if _next_is_near(unix_time) else [epoch, epoch - 1]


def expiry_of(epoch: int) -> int:
    """The latest useful expiry (unix seconds) of a record published under ``epoch``: the end of the
    epoch after it, for until then the topic is looked up."""
    return (epoch + 2) * EPOCH_S


def next_change(unix_time: float) -> float:
    """Seconds until ``publish_epochs`` gives another answer than now; always positive."""
    into = unix_time % EPOCH_S
    boundary = EPOCH_S if _next_is_near(unix_time) else EPOCH_S - OVERLAP_S
    return boundary - into


def _next_is_near(unix_time: float) -> bool:
    return unix_time % EPOCH_S >= EPOCH_S - OVERLAP_S
