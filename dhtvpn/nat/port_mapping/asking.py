"""Asks a gateway over UDP until it answers, a few times within three seconds."""

import asyncio
import errno
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from dhtvpn.drops import Drops
from dhtvpn.errors import DecodeError
from dhtvpn.nat.port_mapping.terms import ROOM, RefusedError

T = TypeVar("T")

WAITS_S: Final = (0.25, 0.5, 1.0, 1.25)
"""How long each try waits for its answer. RFC 6886 section 3.1 begins so and doubles up to 64 s; whoever has
not answered within three seconds is asked again minutes later."""

MAX_ANSWERS: Final = 32
"""Datagrams read for one question: a gateway that talks on without answering it is left alone."""


class Channel(Protocol):
    """Datagrams to one gateway, and those from its address only."""

    def send(self, data: bytes) -> None:
        """Raises OSError."""
        ...

    async def receive(self) -> bytes:
        """The next datagram, cut to what any answer has. Raises OSError, as where nothing listens."""
        ...

    def close(self) -> None: ...


async def ask(
    channel: Channel,
    request: bytes,
    read: Callable[[bytes], T],
    drops: Drops,
    waits_s: Sequence[float] = WAITS_S,
) -> T:
    """What ``read`` makes of the first answer that it takes; those for which it raises DecodeError are
    counted. Raises RefusedError where none comes.
    """
    left = MAX_ANSWERS
    try:
        for wait_s in waits_s:
            channel.send(request)
            try:
                async with asyncio.timeout(wait_s):
                    while left > 0:
                        left -= 1
                        try:
                            return read(await channel.receive())
                        except DecodeError as error:
                            drops.count(ROOM, error.reason)
            except TimeoutError:
                continue
            drops.count(ROOM, "too_many_answers")
            raise RefusedError("answers with garbage")
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            raise RefusedError("not offered") from error
        raise RefusedError(error.strerror or "no way there") from error
    raise RefusedError("no answer")
