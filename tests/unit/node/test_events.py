"""The ring of events: numbers, bounds, and readers at their own pace."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from virtual_time import run

from dhtvpn.errors import DhtVpnError
from dhtvpn.node import events as module
from dhtvpn.node.events import Events
from dhtvpn.node.happenings import Retry


def ring(count: int = 0) -> Events:
    events = Events(lambda kind, text: None, unix_time=lambda: 1.5)
    for number in range(count):
        events.say("test", f"event {number + 1}")
    return events


async def take(stream: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event async for event in stream]


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return [event["seq"] for event in found]


def test_events_have_numbers_facts_and_one_shape() -> None:
    reported: list[tuple[str, str]] = []

    async def scenario() -> list[dict[str, Any]]:
        events = Events(lambda kind, text: reported.append((kind, text)), unix_time=lambda: 1.5)
        events.say("nat", "seen")
        events.tell(Retry("laptop", "abc", 2, relayed=True))
        return await take(events.stream(follow=False))

    said, retry = run(scenario())
    assert said == {"seq": 1, "time": 1.5, "kind": "nat", "event": "nat", "text": "seen"}
    assert retry == {
        "seq": 2,
        "time": 1.5,
        "kind": "peer",
        "event": "retry",
        "text": "laptop: no direct path in 2 attempts, trying again",
        "peer": "laptop",
        "id": "abc",
        "attempt": 2,
        "relayed": True,
    }
    assert reported == [("nat", "seen")], "a retry is for those who follow, not for the terminal"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"last": 2}, [4, 5]),
        ({"last": 0}, []),
        ({"last": 99}, [1, 2, 3, 4, 5]),
        ({"after": 3}, [4, 5]),
        ({"after": 5}, []),
        ({"after": 700}, [1, 2, 3, 4, 5]),  # of an earlier run of the node
    ],
)
def test_where_a_reader_begins(asked: dict[str, int], expected: list[int]) -> None:
    async def scenario() -> list[dict[str, Any]]:
        return await take(ring(5).stream(**asked, follow=False))

    assert numbers(run(scenario())) == expected


def test_the_ring_is_bounded_and_a_late_reader_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HISTORY", 10)

    async def scenario() -> list[dict[str, Any]]:
        return await take(ring(25).stream(after=3, follow=False))

    missed, *rest = run(scenario())
    assert (missed["event"], missed["count"], missed["seq"]) == ("missed", 12, 15)
    assert numbers(rest) == list(range(16, 26))


def test_a_stuck_reader_costs_nothing_and_hears_how_much_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HISTORY", 10)

    async def scenario() -> None:
        events = ring(1)
        reader = events.stream()
        assert (await anext(reader))["seq"] == 1
        for _ in range(30):
            events.say("test", "unread")  # returns at once, whoever does not read
        assert len(events._ring) == 10
        missed = await anext(reader)
        assert (missed["event"], missed["count"], missed["seq"]) == ("missed", 20, 21)
        assert numbers([await anext(reader) for _ in range(10)]) == list(range(22, 32))
        waiting = asyncio.create_task(anext(reader))
        await asyncio.sleep(1)
        assert not waiting.done()
        events.say("test", "fresh")
        assert (await waiting)["text"] == "fresh"
        await reader.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_readers_are_counted_and_leave() -> None:
    async def scenario() -> None:
        events = ring(1)
        readers = [events.stream() for _ in range(module.MAX_READERS)]
        for reader in readers:
            await anext(reader)
        with pytest.raises(DhtVpnError, match="32 readers"):
            await anext(events.stream())
        await readers[0].aclose()  # type: ignore[attr-defined]
        assert (await anext(events.stream()))["seq"] == 1
        for reader in readers[1:]:
            await reader.aclose()  # type: ignore[attr-defined]

    run(scenario())
