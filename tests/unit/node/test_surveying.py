"""When the outside is asked how it sees us: at the start, now and then, and when there is a reason."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

from virtual_time import run

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat.filtering import Filtering
from dhtvpn.nat.reflexive import Mapping
from dhtvpn.node import surveying as module
from dhtvpn.node.surveying import Surveying


class World:
    """Surroundings that note when they are looked at."""

    def __init__(self) -> None:
        self.looks: list[float] = []
        self.changed: list[bool] = []
        self.news = False
        self.around = SimpleNamespace(
            look=self._look,
            look_at_filtering=self._filtering,
            answered=True,
            mapping=Mapping.NONE,
            filtering=Filtering.NOT_BY_PORT,
            public_endpoints=(),
        )
        self.dht = SimpleNamespace(read_only=True, size=3)
        self.surveying = Surveying(
            self.around,  # type: ignore[arg-type]
            SimpleNamespace(contacts=list, dht=self.dht),  # type: ignore[arg-type]
            names=(),
            families=(4,),
            changed=self.changed.append,
            say=lambda *_: None,
        )

    async def _look(self, servers: Sequence[Endpoint]) -> bool:
        self.looks.append(asyncio.get_running_loop().time())
        return self.news

    async def _filtering(self, servers: Sequence[Endpoint]) -> bool:
        return False

    def gaps(self) -> list[int]:
        return [round(later - at) for at, later in zip(self.looks, self.looks[1:], strict=False)]


def scenario(test: Callable[[World], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def wrapped() -> None:
        async def whole() -> None:
            world = World()
            task = asyncio.create_task(world.surveying.run(()))
            await asyncio.sleep(0.1)
            try:
                await test(world)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        run(whole())

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


@scenario
async def test_now_and_then(world: World) -> None:
    await asyncio.sleep(400)
    assert world.gaps() == [3, 15, 120, 120, 120]
    assert world.surveying.done.is_set() and not world.dht.read_only and not world.changed


@scenario
async def test_another_network_is_surveyed_at_once_and_told_even_if_all_is_the_same(world: World) -> None:
    await asyncio.sleep(100)
    before = len(world.looks)
    world.surveying.soon(afresh=True)
    await asyncio.sleep(0.1)
    assert len(world.looks) == before + 1 and world.changed == [True]


@scenario
async def test_paths_that_fall_silent_one_after_the_other_make_few_surveys(world: World) -> None:
    await asyncio.sleep(100)
    before = len(world.looks)
    for _ in range(100):
        world.surveying.soon(afresh=False)
        await asyncio.sleep(0.1)
    assert 2 <= len(world.looks) - before <= 10 / module.LEAST_PAUSE_S + 1
    assert not world.changed


@scenario
async def test_a_router_that_starts_again_is_noticed_soon(world: World) -> None:
    await asyncio.sleep(100)
    world.around.answered = False
    world.surveying.soon(afresh=False)
    before = len(world.looks)
    await asyncio.sleep(90)
    assert len(world.looks) - before >= module.UNANSWERED
    await asyncio.sleep(600)
    assert world.gaps()[-1] == module.SURVEY_S[-1], "nobody there for good"


@scenario
async def test_whoever_was_cut_off_makes_itself_known_again(world: World) -> None:
    await asyncio.sleep(100)
    world.around.answered = False
    world.surveying.soon(afresh=False)
    await asyncio.sleep(20)
    assert not world.changed
    world.around.answered = True
    await asyncio.sleep(module.UNANSWERED_S + 0.1)
    assert world.changed == [True]
    await asyncio.sleep(300)
    assert world.changed == [True]


@scenario
async def test_whoever_has_lost_the_directory_makes_itself_known_through_who_answers_the_survey(
    world: World,
) -> None:
    """The survey that was under way when the router came back has its answer, and the directory none yet."""
    assert not world.changed
    world.dht.size, world.news = 0, True
    world.surveying.soon(afresh=False)
    await asyncio.sleep(module.LEAST_PAUSE_S + 0.1)
    assert world.changed == [True]
    world.dht.size, world.news = 3, False
    await asyncio.sleep(300)
    assert world.changed == [True]


@scenario
async def test_the_first_survey_leaves_the_directory_to_who_enters_it(world: World) -> None:
    fresh = World()
    fresh.dht.size = 0
    task = asyncio.create_task(fresh.surveying.run(()))
    await asyncio.sleep(1)
    assert len(fresh.looks) == 1 and not fresh.changed
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
