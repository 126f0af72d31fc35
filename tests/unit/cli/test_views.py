"""The words for sizes and times."""

import pytest

from dhtvpn.cli import views


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (9_940_000, "9.9 MB"),
        (987_654_321_000, "988 GB"),
        (5_000_000_000_000, "5.0 TB"),
    ],
)
def test_size(number: int, text: str) -> None:
    assert views.size(number) == text
    assert len(text) <= 7


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("node",), "0 nodes"),
        (1, ("node",), "1 node"),
        (1, ("prefix", "prefixes"), "1 prefix"),
        (2, ("prefix", "prefixes"), "2 prefixes"),
    ],
)
def test_several(number: int, words: tuple[str, ...], text: str) -> None:
    assert views.several(number, *words) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (3725, "1 h 2 min"), (200_000, "2 d 7 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert views.duration(seconds) == text


@pytest.mark.parametrize(
    ("offloads", "restarts", "text"),
    [
        ([], 0, "plain packets, no offloads"),
        (["udp_gro", "aes"], 0, "offloads: udp_gro, aes"),
        (["aes"], 1, "offloads: aes; ended unexpectedly once, started again"),
        ([], 3, "plain packets, no offloads; ended unexpectedly 3 times, started again"),
    ],
)
def test_engine(offloads: list[str], restarts: int, text: str) -> None:
    assert views._engine({"pid": 7, "offloads": offloads, "restarts": restarts}) == text


@pytest.mark.parametrize(
    ("sources", "text"),
    [
        ([("hint", False, 0), ("lan", True, 0), ("kademlia", False, 2)], "lan (l); kademlia (k)"),
        ([("hint", False, 0), ("lan", False, 0)], "hint (h); lan (l)"),
    ],
)
def test_sources(sources: list[tuple[str, bool, int]], text: str) -> None:
    parts = [
        {"name": name, "works": works, "detail": name[0], "peers_found": found}
        for name, works, found in sources
    ]
    assert views._sources(parts) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.04, "0.0 ms"), (12.34, "12.3 ms"), (250.4, "250 ms")]
)
def test_milliseconds(value: float | None, text: str) -> None:
    assert views.milliseconds(value) == text
