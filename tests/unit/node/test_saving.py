"""When things are written down, in virtual time."""

import asyncio
from typing import Any, cast

from virtual_time import run

from dhtvpn.errors import SystemRefusedError
from dhtvpn.node.memory import Memory
from dhtvpn.node.saving import LEAST_PAUSE_S, SAVE_S, Saving


class Disk:
    """Notes when it was written to."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.refuses = False

    def save(self) -> None:
        if self.refuses:
            raise SystemRefusedError("the disk is full")
        self.at.append(asyncio.get_running_loop().time())


def test_many_paths_that_come_up_together_are_written_down_together() -> None:
    async def scenario() -> None:
        disk, said = Disk(), list[Any]()
        saving = Saving(cast(Memory, disk), lambda *words: said.append(words))
        task = asyncio.create_task(saving.run())
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        saving.soon()
        await asyncio.sleep(0.1)
        assert disk.at == [began], "the first one at once"
        for _ in range(60):
            saving.soon()
            await asyncio.sleep(0.02)
        await asyncio.sleep(LEAST_PAUSE_S)
        assert len(disk.at) == 2
        await asyncio.sleep(SAVE_S + LEAST_PAUSE_S)
        assert len(disk.at) == 3, "now and then without a reason"
        disk.refuses = True
        saving.now()
        assert said == [("warning", "the disk is full")]
        task.cancel()

    run(scenario())
