"""One pipelined lookup: several queries in flight, a soft timeout frees a slot, a late answer counts."""

import asyncio
from collections.abc import Callable, Iterable

from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.shortlist import Shortlist

DEADLINE_S = 10.0
"""No lookup lasts longer, whatever hostile nodes answer."""

Ask = Callable[[Contact], "asyncio.Task[list[Contact] | None]"]
"""Start a query; the task ends with the contacts in the answer, or None when there was none."""


async def run(
    shortlist: Shortlist,
    start: Iterable[Contact],
    ask: Ask,
    soft_timeout_s: Callable[[Contact], float],
    progress: Callable[[Shortlist], None] = lambda _: None,
) -> list[Contact]:
    """The closest nodes that answered. Queries still running at the end belong to the owner of ``ask``.
    ``start``: contacts of the own table. ``progress`` sees the shortlist after every answer."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + DEADLINE_S
    running: dict[asyncio.Task[list[Contact] | None], tuple[Contact, float]] = {}
    shortlist.start(start)
    while clock() < deadline:
        while (contact := shortlist.next_to_ask()) is not None:
            running[ask(contact)] = (contact, clock() + soft_timeout_s(contact))
        if shortlist.finished() or not running:
            break
        soft = [at for _, at in running.values() if at > clock()]
        wake_at = min([*soft, deadline])
        await asyncio.wait(running, timeout=wake_at - clock(), return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in running if task.done()]:
            contact, _ = running.pop(task)
            _account(shortlist, contact, task)
        progress(shortlist)
        for contact, soft_at in running.values():
            if clock() >= soft_at:
                shortlist.slow(contact)
    return shortlist.closest_answered()


def _account(shortlist: Shortlist, contact: Contact, task: "asyncio.Task[list[Contact] | None]") -> None:
    told = None if task.cancelled() else task.result()
    if told is None:
        shortlist.failed(contact)
    else:
        shortlist.answered(contact, told)
