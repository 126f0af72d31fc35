"""Drops become few events."""

import asyncio

from virtual_time import run

from dhtvpn.drops import Drops
from dhtvpn.node.drop_reports import FIRST_S, LONGEST_S, DropReports
from dhtvpn.node.happenings import MAX_REASONS, Dropped, Happening


def test_sums_and_not_one_for_each() -> None:
    told: list[Happening] = []
    drops = Drops()

    async def scenario() -> None:
        running = asyncio.create_task(DropReports(counts=drops.as_dict, tell=told.append).run())
        for _ in range(40):
            drops.count("nat", "stun", 25)
            await asyncio.sleep(0.1)
        drops.count("record", "signature")
        await asyncio.sleep(FIRST_S)
        assert told == [Dropped({"nat.stun": 1000, "record.signature": 1}, FIRST_S)]
        await asyncio.sleep(600)
        assert len(told) == 1, "nothing is dropped any more"
        drops.count("nat", "stun")
        await asyncio.sleep(FIRST_S + 1)
        assert len(told) == 2 and told[-1].facts()["counts"] == {"nat.stun": 1}
        running.cancel()

    run(scenario())


def test_noise_that_goes_on_is_told_of_ever_more_rarely() -> None:
    told: list[Happening] = []
    drops = Drops()

    async def scenario() -> None:
        running = asyncio.create_task(DropReports(counts=drops.as_dict, tell=told.append).run())
        for _ in range(3600):
            drops.count("nat", "stun")
            await asyncio.sleep(1)
        running.cancel()

    run(scenario())
    assert len(told) <= 7 + 3600 / LONGEST_S


def test_the_sentence_names_the_most_frequent() -> None:
    counts = {f"room.reason{number:02d}": number for number in range(1, 13)}
    text = Dropped(counts, 5.0).text
    assert text.startswith("dropped in 5 s: room.reason12 12, room.reason11 11")
    assert text.endswith(f", and {12 - MAX_REASONS} more kinds")
