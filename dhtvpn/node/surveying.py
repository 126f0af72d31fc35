"""Keeps what the outside sees of this node up to date: at the start, now and then, and when somebody asks."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

from dhtvpn.discovery.sources import Sources
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.nat.filtering import Filtering
from dhtvpn.nat.reflexive import Mapping
from dhtvpn.node.bootstrap import first_endpoints
from dhtvpn.node.patience import happens
from dhtvpn.node.surroundings import Surroundings

SURVEY_S: Final = (3.0, 15.0, 120.0)
"""Pauses between surveys; the last one repeats. The early ones find a second STUN server for the mapping."""

UNANSWERED_S, UNANSWERED = 0.5, 150
"""After a survey that nobody answered, for six minutes: our router may be starting again, and have another
public address for us then, which is to be known within a second. One survey's own last question is 0.25 s
from its end."""

LEAST_PAUSE_S: Final = 2.0
"""Between two surveys that were asked for, beyond the first: a few STUN requests each."""


class Surveying:
    """``changed`` is called after each survey that changed the candidates; and, with True, after each that
    was asked for with ``afresh``, and after one that was answered where those before were not, or where the
    directory has lost touch with everybody."""

    def __init__(
        self,
        surroundings: Surroundings,
        sources: Sources,
        *,
        names: Sequence[str],
        families: Collection[int],
        changed: Callable[[bool], None],
        say: Callable[[str, str], None],
    ) -> None:
        self._surroundings = surroundings
        self._sources = sources
        self._names = names
        self._families = frozenset(families)
        self._changed = changed
        self._say = say
        self._wanted = asyncio.Event()
        self._afresh = False
        self._filtering_known = False
        self.done = asyncio.Event()
        """The first one is over."""
        self.servers: tuple[Endpoint, ...] = ()
        """Addresses given, and contacts of earlier runs."""
        if sources.dht is not None:
            sources.dht.read_only = True  # until a survey shows that strangers can reach us

    def soon(self, *, afresh: bool) -> None:
        """Survey again, at once unless that was done just now. ``afresh``: the network is another one."""
        self._afresh = self._afresh or afresh
        self._wanted.set()

    async def run(self, remembered: Sequence[Endpoint]) -> None:
        """Until cancelled."""
        self.servers = tuple(await first_endpoints(self._names, remembered, self._families))
        number = unanswered = 0
        while True:
            self._wanted.clear()
            afresh, self._afresh = self._afresh, False
            await self._survey(afresh, was_cut_off=unanswered > 0)
            unanswered = 0 if self._surroundings.answered else unanswered + 1
            if 0 < unanswered <= UNANSWERED:
                pause_s = UNANSWERED_S
            else:
                pause_s = SURVEY_S[min(number, len(SURVEY_S) - 1)]
                number = 0 if afresh else number + 1
            await self._pause(pause_s)

    async def _survey(self, afresh: bool, *, was_cut_off: bool) -> None:
        known = [*self.servers, *self._sources.contacts()]
        try:
            changed = await self._surroundings.look(list(dict.fromkeys(known)))
        except SystemRefusedError as error:
            self._say("warning", str(error))
            changed = False
        dht = self._sources.dht
        out_of_touch = self.done.is_set() and dht is not None and not dht.size
        afresh = afresh or ((was_cut_off or out_of_touch) and self._surroundings.answered)
        self.done.set()
        if self._sources.dht is not None:
            self._sources.dht.read_only = self._surroundings.mapping is not Mapping.NONE
        if changed:
            public = ", ".join(str(endpoint) for endpoint in self._surroundings.public_endpoints)
            self._say("nat", f"seen from outside as {public or 'unknown'}")
        if changed or afresh:
            self._changed(afresh)
            self._filtering_known = False
        if not self._filtering_known:
            news = await self._surroundings.look_at_filtering(list(dict.fromkeys(known)))
            self._filtering_known = self._surroundings.filtering is not Filtering.UNKNOWN
            if news:
                self._changed(False)

    async def _pause(self, pause_s: float) -> None:
        """Until the time is up or another is wanted; one that is not ``afresh`` keeps its distance."""
        loop = asyncio.get_running_loop()
        least_until = loop.time() + LEAST_PAUSE_S
        if not await happens(self._wanted, pause_s):
            return
        while not self._afresh and (left_s := least_until - loop.time()) > 0:
            self._wanted.clear()
            if not await happens(self._wanted, left_s):
                return
