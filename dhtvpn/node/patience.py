"""Waits for an event, but not for ever."""

import asyncio


async def happens(event: asyncio.Event, within_s: float) -> bool:
    """Whether ``event`` is set now or within so many seconds.

    A task that is cancelled in the very moment in which the event is set ends here: asyncio.wait_for of
    Python 3.11 would return, and the task go on (https://github.com/python/cpython/issues/86296).
    """
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
