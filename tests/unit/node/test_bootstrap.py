"""Getting into the DHT: names and literals, retries with a word to the user, and no idle chatter."""

import asyncio
from typing import Any

from virtual_time import run

from dhtvpn.endpoint import Endpoint
from dhtvpn.node import bootstrap as module
from dhtvpn.node.bootstrap import Bootstrapper, resolve

BOTH = frozenset({4, 6})


class FakeDirectory:
    """Answers to nobody until ``reachable``."""

    def __init__(self) -> None:
        self.reachable = False
        self.size = 0
        self.asked: list[list[Endpoint]] = []

    async def bootstrap(self, endpoints: list[Endpoint]) -> int:
        self.asked.append(endpoints)
        self.size = 2 if self.reachable else 0
        return self.size


class Bench:
    """A bootstrapper over a fake directory, and what it said."""

    def __init__(self, *names: str, remembered: tuple[Endpoint, ...] = ()) -> None:
        self.directory = FakeDirectory()
        self.said: list[tuple[str, str]] = []
        self.answered = 0
        self.bootstrapper = Bootstrapper(
            directory=self.directory,  # type: ignore[arg-type]
            names=names,
            remembered=remembered,
            families=BOTH,
            say=lambda kind, text: self.said.append((kind, text)),
            answered=self._count,
        )

    def _count(self) -> None:
        self.answered += 1


async def for_a_while(bench: Bench, seconds: float) -> asyncio.Task[None]:
    task = asyncio.create_task(bench.bootstrapper.run())
    await asyncio.sleep(seconds)
    return task


def scenario(test: Any) -> Any:
    def wrapped() -> None:
        run(test())

    wrapped.__name__ = test.__name__
    return wrapped


def test_addresses_of_both_families_and_no_family_that_is_missing() -> None:
    async def both() -> None:
        literals = ["198.18.0.1:4690", "[2001:db8::1]:4690", "198.18.0.1:4690"]
        assert await resolve(literals, BOTH) == [
            Endpoint("198.18.0.1", 4690),
            Endpoint("2001:db8::1", 4690),
        ]
        assert await resolve(literals, frozenset({6})) == [Endpoint("2001:db8::1", 4690)]

    asyncio.run(both())


@scenario
async def test_it_is_said_once_when_the_dht_is_reached() -> None:
    bench = Bench("198.18.0.1:4690")
    bench.directory.reachable = True
    task = await for_a_while(bench, 4 * module.REFRESH_S)
    assert [kind for kind, _ in bench.said] == ["directory"]
    assert bench.answered >= 3, "it looks for new contacts now and then"
    task.cancel()


@scenario
async def test_silence_is_said_and_trying_goes_on() -> None:
    bench = Bench("198.18.0.1:4690")
    task = await for_a_while(bench, 120)
    assert bench.said[0][0] == "warning" and "198.18.0.1:4690" in bench.said[0][1]
    assert len(bench.said) <= 3, "without repeating itself all the time"
    tries = len(bench.directory.asked)
    assert tries >= 6
    bench.directory.reachable = True
    await asyncio.sleep(module.RETRY_S[-1] + 1)
    assert bench.said[-1][0] == "directory" and bench.answered == 1
    bench.directory.size = 0
    bench.directory.reachable = False
    await asyncio.sleep(300)
    assert len(bench.directory.asked) > tries + 2, "a table that ran empty starts it again"
    task.cancel()


@scenario
async def test_remembered_contacts_serve_without_any_name() -> None:
    bench = Bench(remembered=(Endpoint("198.18.0.9", 9),))
    bench.directory.reachable = True
    task = await for_a_while(bench, 1)
    assert bench.directory.asked[0] == [Endpoint("198.18.0.9", 9)]
    task.cancel()


@scenario
async def test_without_anything_to_ask_the_user_is_told_what_to_do() -> None:
    bench = Bench()
    task = await for_a_while(bench, 1)
    assert "--bootstrap" in bench.said[0][1] and not bench.directory.asked
    task.cancel()
