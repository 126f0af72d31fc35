"""Verifying others by a ping of ours: strangers that ask us, before they enter the table, and contacts that
were not heard of for long, before others are told about them."""

from collections.abc import Callable
from typing import Final

from dhtvpn.discovery.allowance import Allowance
from dhtvpn.discovery.contact import IPV4, IPV6, Contact
from dhtvpn.discovery.directory import KEY_LENGTH
from dhtvpn.discovery.pace import Pace
from dhtvpn.discovery.queries import Queries
from dhtvpn.discovery.routing import RoutingTable
from dhtvpn.discovery.tasks import OwnedTasks
from dhtvpn.discovery.wire import (
    CONTACTS_IN_REPLY,
    MESSAGE_ID_LENGTH,
    TOKEN_LENGTH,
    Flags,
    Request,
    Rpc,
    encode_request,
)
from dhtvpn.endpoint import Endpoint

MAX_MEETINGS: Final = 32
"""Strangers that are being verified at once; each costs one ping."""

CHECKS_PER_S, CHECKS_AT_ONCE = 0.2, 8.0
"""Contacts that are pinged because somebody should be told about them: 20 octets per second at most."""

PING_LENGTH = len(
    encode_request(bytes(MESSAGE_ID_LENGTH), Request(Rpc.PING, bytes(KEY_LENGTH), bytes(TOKEN_LENGTH)))
)
"""Octets of a ping, with a token."""


class Meetings:
    """At most MAX_MEETINGS strangers at a time, and contacts at a pace of their own."""

    def __init__(
        self, queries: Queries, table: RoutingTable, tasks: OwnedTasks, *, monotonic: Callable[[], float]
    ) -> None:
        self._queries, self._table, self._tasks, self._monotonic = queries, table, tasks, monotonic
        self._meetings: set[Endpoint] = set()
        self._checks = Pace(CHECKS_PER_S, CHECKS_AT_ONCE, monotonic())

    def met(self, request: Request, source: Endpoint, allowance: Allowance) -> None:
        """A stranger asked us something: verify it by one ping of ours before it enters the table. Those who
        may be forged take half of the places at most."""
        if allowance.proven:
            self._queries.silence.broken(source)
            self._check(request)
        stranger = Contact(request.node_id, source)
        if request.flags & Flags.READ_ONLY or not self._table.wants(stranger):
            return
        if source in self._meetings or self._queries.silence.holds(source, self._monotonic()):
            return
        places = MAX_MEETINGS if allowance.proven else MAX_MEETINGS // 2
        if len(self._meetings) < places and allowance.take(PING_LENGTH):
            self._meetings.add(source)
            self._tasks.spawn(self._meet(source))

    def __len__(self) -> int:
        """Strangers that are being verified."""
        return len(self._meetings)

    async def _meet(self, source: Endpoint) -> None:
        try:
            await self._queries.ask(source, Rpc.PING, retransmit=False)
        finally:
            self._meetings.discard(source)

    def _check(self, request: Request) -> None:
        """Ping one of those that the asker should have been told about, had they answered lately: who asks
        next is told. Only the proven make us ping others."""
        if request.rpc not in (Rpc.FIND, Rpc.FIND_NODE):
            return
        now = self._monotonic()
        for family, wanted in ((IPV4, Flags.WANT_IPV4), (IPV6, Flags.WANT_IPV6)):
            if not request.flags & wanted:
                continue
            for contact in self._table.to_check(request.target, CONTACTS_IN_REPLY, family, now):
                if not self._checks.take(now):
                    return
                self._tasks.spawn(self._queries.ping(contact))
