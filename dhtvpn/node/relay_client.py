"""Our registrations at volunteers' relays: found, proven, renewed, given up.

A node is *at home* with WANTED volunteers, of which its record tells the others, and a *guest* at those where
a peer is at home, as long as it sends through them. Both are the same registration.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.mesh.relay_wire import (
    NO_TOKEN,
    NotHere,
    Refused,
    Register,
    Registered,
    Stranger,
    Token,
    decode_service,
    encode_service,
    relay_id,
)
from dhtvpn.node.patience import happens

log = logging.getLogger(__name__)

WANTED: Final = 2
"""Volunteers to be at home with, ours: one may go away."""
MAX_VOLUNTEERS: Final = 16
"""Registrations at once; a hostile record names two strangers at most."""
RENEW_S: Final = 20.0
"""A third of the lease; also often enough for every NAT (RFC 4787 REQ-5)."""
FIRST_ANSWER_S: Final = 0.25
LONGEST_ANSWER_S: Final = 1.0
ATTEMPTS: Final = 5
"""Each waits twice as long as the one before, up to the longest: 3.75 s in all."""
OTHERS_S: Final = 35.0
"""The claims of other epochs are shown at every other renewal: no NAT has to be kept awake for them."""
GUEST_S: Final = 180.0
"""How long a registration is renewed that nobody has asked for again."""
UNWILLING_S: Final = 600.0
"""How long a node that did not answer, or refused, is not asked again by ourselves."""
MAX_LEASE_S: Final = 120.0
"""However long a volunteer says that it keeps us."""
STRANGER_S: Final = 1.0
"""We register again because a volunteer says that it does not know us at most this often."""
LOOK_S: Final = 2.0
"""Between looks for a volunteer while there are too few."""
FIRST_LOOK_S, EARLY_LOOKS = 0.02, 150
"""The same right after the start, while nobody is known who could be asked."""
AT_ONCE: Final = 4
"""Strangers asked in one look."""


class _Volunteer:
    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.token = NO_TOKEN
        self.expires = 0.0
        self.asked_at = float("-inf")
        self.renew_at = 0.0
        self.others_at = 0.0
        """When the claims of other epochs are due again."""
        self.wanted_until = 0.0
        self.refused = False
        self.answered = asyncio.Event()
        self.task: asyncio.Task[bool] | None = None


class RelayClient:
    """``claims`` gives ours, the present epoch's first; ``changed`` is told when :attr:`homes` are others;
    ``not_here`` of an id that a volunteer does not know, ``lost`` of a volunteer that does not answer."""

    def __init__(
        self,
        *,
        send: Callable[[bytes, Endpoint], object],
        claims: Callable[[], Sequence[bytes]],
        changed: Callable[[], None],
        not_here: Callable[[Endpoint, bytes], None],
        lost: Callable[[Endpoint], None],
        drops: Drops,
    ) -> None:
        self._send, self._claims, self._changed = send, claims, changed
        self._not_here, self._lost, self._drops = not_here, lost, drops
        self._volunteers: dict[Endpoint, _Volunteer] = {}
        self._homes: list[Endpoint] = []
        self._unwilling: dict[Endpoint, float] = {}
        self._answered_at = float("-inf")
        self._look_now = asyncio.Event()
        self._families: Collection[int] = (4, 6)

    @property
    def homes(self) -> tuple[Endpoint, ...]:
        """Where we are at home now, the longest-known first."""
        return tuple(self._homes)

    def registered(self, endpoint: Endpoint) -> bool:
        """Whether we may send through the volunteer at ``endpoint``."""
        volunteer = self._volunteers.get(endpoint)
        return volunteer is not None and volunteer.expires > _now()

    async def register(self, endpoint: Endpoint) -> bool:
        """Be a guest at ``endpoint`` for the next minutes; whether it takes us."""
        volunteer = self._volunteer(endpoint) if self._within_reach(endpoint) else None
        if volunteer is None:
            return False
        volunteer.wanted_until = _now() + GUEST_S
        if volunteer.expires > _now():
            return True
        return await asyncio.shield(self._registration(volunteer))

    async def run(self, candidates: Callable[[], Sequence[Endpoint]]) -> None:
        """Find volunteers among ``candidates`` and stay registered, until cancelled."""
        asked, looks = False, 0
        try:
            while True:
                looks += 1
                self._forget_unused()
                if len(self._homes) < WANTED:
                    asked = await self._look(candidates())
                self._renew()
                early = looks < EARLY_LOOKS and not asked and not self._homes
                await happens(self._look_now, FIRST_LOOK_S if early else LOOK_S)
                self._look_now.clear()
        finally:
            tasks = [v.task for v in self._volunteers.values() if v.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def network_changed(self, families: Collection[int] = (4, 6)) -> None:
        """Volunteers may know us at an address that is ours no more, and others may be within reach. Those of
        an address family that is none of ``families`` are not."""
        self._unwilling.clear()
        self._families = families
        self._look_now.set()
        for volunteer in list(self._volunteers.values()):
            if not self._within_reach(volunteer.endpoint):
                self._leave(volunteer)
        for volunteer in self._volunteers.values():
            volunteer.renew_at = volunteer.others_at = 0.0
        self._renew()

    def datagram_received(self, data: bytes, source: Endpoint) -> None:
        """What a volunteer says. Never raises on its bytes."""
        volunteer = self._volunteers.get(source)
        if volunteer is None:
            self._drops.count("relay", "unasked")
            return
        try:
            message = decode_service(data)
        except DecodeError as error:
            self._drops.count("relay", error.reason)
            return
        match message:
            case Token():
                volunteer.token = message.token
                volunteer.answered.set()
            case Registered():
                if message.relay_id == relay_id(self._claims()[0]):
                    self._answered_at = _now()
                    volunteer.expires = self._answered_at + min(message.lease_s, MAX_LEASE_S)
                    volunteer.answered.set()
            case Refused():
                volunteer.refused = True
                volunteer.answered.set()
            case NotHere():
                self._not_here(source, message.relay_id)
            case Stranger():  # it has forgotten us, or we come from another address than before
                if _now() - volunteer.asked_at >= STRANGER_S:
                    volunteer.renew_at = volunteer.others_at = 0.0
                    self._renew()
            case Register():
                self._drops.count("relay", "unasked")

    def _within_reach(self, endpoint: Endpoint) -> bool:
        return (6 if endpoint.is_ipv6 else 4) in self._families

    def _volunteer(self, endpoint: Endpoint) -> _Volunteer | None:
        known = self._volunteers.get(endpoint)
        if known is None and len(self._volunteers) < MAX_VOLUNTEERS:
            known = self._volunteers[endpoint] = _Volunteer(endpoint)
        return known

    def _registration(self, volunteer: _Volunteer) -> asyncio.Task[bool]:
        if volunteer.task is None or volunteer.task.done():
            volunteer.task = asyncio.create_task(self._register(volunteer), name="register at a relay")
        return volunteer.task

    async def _register(self, volunteer: _Volunteer) -> bool:
        """Ask until there is an answer; a token is answered at once and costs no attempt."""
        volunteer.asked_at = _now()
        volunteer.renew_at = volunteer.asked_at + RENEW_S
        volunteer.refused = False
        others = volunteer.asked_at >= volunteer.others_at
        before, timeout_s, attempts = volunteer.expires, FIRST_ANSWER_S, ATTEMPTS + 1
        while attempts:
            attempts -= 1
            volunteer.answered.clear()
            claims, token = self._claims(), volunteer.token
            for claim in claims if others and token != NO_TOKEN else claims[:1]:
                self._send(encode_service(Register(claim, token)), volunteer.endpoint)
            if not await happens(volunteer.answered, timeout_s):
                timeout_s = min(2 * timeout_s, LONGEST_ANSWER_S)
                continue
            if volunteer.refused:
                break
            others = others or volunteer.token != token  # it may have been started anew, and know none
            if volunteer.token == token and volunteer.expires > max(before, _now()):
                if others:
                    volunteer.others_at = volunteer.asked_at + OTHERS_S
                return True
        if volunteer.refused or volunteer.expires <= _now() or self._answered_at > volunteer.asked_at:
            self._give_up(volunteer)
        else:
            volunteer.renew_at = _now()  # nobody answers: our own network may be down for a while
        return False

    async def _look(self, candidates: Sequence[Endpoint]) -> bool:
        """Ask some that were not asked lately, and be at home with the first that take us. Whether there was
        anybody."""
        now = _now()
        self._unwilling = {e: until for e, until in self._unwilling.items() if until > now}
        for endpoint in candidates:
            if self.registered(endpoint) and endpoint not in self._homes and len(self._homes) < WANTED:
                self._move_in(endpoint)
        new = [e for e in candidates if e not in self._homes and e not in self._unwilling]
        at_once = list(filter(self._within_reach, new))[:AT_ONCE]
        volunteers = [known for e in at_once if (known := self._volunteer(e)) is not None]

        async def ask(volunteer: _Volunteer) -> None:
            if await asyncio.shield(self._registration(volunteer)) and len(self._homes) < WANTED:
                self._move_in(volunteer.endpoint)

        asking = [asyncio.create_task(ask(volunteer)) for volunteer in volunteers]
        try:
            if asking:
                await asyncio.wait(asking, timeout=LOOK_S)
        finally:
            if len(self._homes) >= WANTED:
                for task in asking:
                    task.cancel()
        return bool(candidates)

    def _move_in(self, endpoint: Endpoint) -> None:
        if endpoint not in self._homes:
            self._homes.append(endpoint)
            log.info("relayed by the volunteer at %s where there is no direct path", endpoint)
            self._changed()

    def _give_up(self, volunteer: _Volunteer) -> None:
        self._unwilling[volunteer.endpoint] = _now() + UNWILLING_S
        log.info("the relay at %s does not answer any more", volunteer.endpoint)
        self._leave(volunteer)

    def _leave(self, volunteer: _Volunteer) -> None:
        if volunteer.task is not None and volunteer.task is not asyncio.current_task():
            volunteer.task.cancel()
        if self._volunteers.get(volunteer.endpoint) is volunteer:
            del self._volunteers[volunteer.endpoint]
        if volunteer.endpoint in self._homes:
            self._homes.remove(volunteer.endpoint)
            self._changed()
        self._lost(volunteer.endpoint)

    def _renew(self) -> None:
        now = _now()
        for volunteer in self._volunteers.values():
            wanted = volunteer.endpoint in self._homes or volunteer.wanted_until > now
            if wanted and now >= volunteer.renew_at:
                self._registration(volunteer)

    def _forget_unused(self) -> None:
        now = _now()
        for endpoint, volunteer in list(self._volunteers.items()):
            busy = volunteer.task is not None and not volunteer.task.done()
            if endpoint not in self._homes and volunteer.wanted_until <= now and not busy:
                del self._volunteers[endpoint]
                self._lost(endpoint)


def _now() -> float:
    return asyncio.get_running_loop().time()
