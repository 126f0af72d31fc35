"""The answering side: what a node does with the six requests. Table of handlers at the end of the class."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from dhtvpn.discovery.contact import IPV4, IPV6, Contact
from dhtvpn.discovery.limits import AnswerLimit
from dhtvpn.discovery.reader import Watches
from dhtvpn.discovery.routing import RoutingTable
from dhtvpn.discovery.rpc import Send
from dhtvpn.discovery.storage import Outcome, Storage, Stored
from dhtvpn.discovery.subscriptions import LEASE_S, Subscriptions
from dhtvpn.discovery.tokens import TokenIssuer
from dhtvpn.discovery.wire import (
    AMPLIFICATION,
    CONTACTS_IN_REPLY,
    MAX_UNIX_TIME,
    MAX_VALUES_IN_REPLY,
    RENEWAL,
    Flags,
    Reply,
    Request,
    Rpc,
    Status,
    decode_request,
    encode_reply,
    encode_value,
)
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

_WANTS = {IPV4: Flags.WANT_IPV4, IPV6: Flags.WANT_IPV6}
_STATUS = {
    Outcome.NEW: Status.OK,
    Outcome.REFRESHED: Status.OK,
    Outcome.STALE: Status.STALE,
    Outcome.FULL: Status.FULL,
    Outcome.REFUSED: Status.REFUSED,
}


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the service tells its owner."""

    met: Callable[[Request, Endpoint, bool], None]
    """A request came from this endpoint; its id is only claimed. True when the address is proven."""

    stored: Callable[[bytes, bytes, Endpoint | None], None]
    """(dht_key, envelope, source): a topic changed here."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request, with where it came from and whether that address is proven."""

    message_id: bytes
    request: Request
    size: int
    source: Endpoint
    proven: bool


class Service:
    """Decodes a request, answers it within the limits, and never raises on a peer's bytes."""

    def __init__(
        self,
        send: Send,
        drops: Drops,
        *,
        table: RoutingTable,
        storage: Storage,
        subscriptions: Subscriptions,
        watches: Watches,
        tokens: TokenIssuer,
        hooks: Hooks,
        monotonic: Callable[[], float],
        unix_time: Callable[[], float],
    ) -> None:
        self._send, self._drops, self._hooks = send, drops, hooks
        self._table, self._storage, self._tokens = table, storage, tokens
        self._subscriptions, self._watches = subscriptions, watches
        self._monotonic, self._unix_time = monotonic, unix_time
        self._limit = AnswerLimit()

    def handle_request(self, message_id: bytes, body_untrusted: bytes, size: int, source: Endpoint) -> None:
        """``size`` is the whole datagram's, for the amplification limit."""
        now = self._monotonic()
        if not self._limit.allows(source, now):
            self._drops.count("dht", "rate_limit")
            return
        try:
            request = decode_request(body_untrusted)
        except DecodeError:
            self._drops.count("dht", "malformed_request")
            return
        if request.node_id == self._table.own_id:
            self._drops.count("dht", "own_id")
            return
        proven = self._tokens.valid(request.token, source, now)
        asked = _Asked(message_id, request, size, source, proven)
        self._HANDLERS[request.rpc](self, asked)
        self._hooks.met(request, source, proven)

    def _ping(self, asked: _Asked) -> None:
        """The asker may compare clocks; ours may be anything, so it is cut to what the wire carries."""
        unix_time = min(max(int(self._unix_time()), 0), MAX_UNIX_TIME)
        self._reply(asked, replace(self._base(asked), unix_time=unix_time))

    def _find_node(self, asked: _Asked) -> None:
        self._reply(asked, self._base(asked, contacts=self._closest(asked)))

    def _find(self, asked: _Asked) -> None:
        """Contacts first; values follow in datagrams of their own, as far as the address is proven."""
        base = self._base(asked, contacts=self._closest(asked))
        lacking = self._lacking(asked)
        room = None if asked.proven else AMPLIFICATION * asked.size - self._size(asked, base)
        self._reply_with_values(asked, base, lacking, room)

    def _store(self, asked: _Asked) -> None:
        if not asked.proven:
            self._reply(asked, self._base(asked, status=Status.BAD_TOKEN))
            return
        request = asked.request
        outcome = self._storage.put(request.target, request.payload, asked.source, self._unix_time())
        self._reply(asked, self._base(asked, status=_STATUS[outcome]))
        if outcome is Outcome.NEW:
            self._hooks.stored(request.target, request.payload, asked.source)

    def _watch(self, asked: _Asked) -> None:
        """The lease, and at once what the watcher lacks: nothing falls between its lookup and the lease.

        Who renews a lease that lasts lacks nothing: what came meanwhile was pushed and acknowledged. Who
        renews one that has ended is told how much there is, to ask with a list of what it has."""
        if not asked.proven:
            self._reply(asked, self._base(asked, status=Status.BAD_TOKEN))
            return
        target, renewal = asked.request.target, asked.request.payload == RENEWAL
        lasts = renewal and self._subscriptions.holds(target, asked.source, self._monotonic())
        if not self._subscriptions.subscribe(target, asked.source, self._monotonic()):
            self._drops.count("dht", "subscriptions_full")
            self._reply(asked, self._base(asked, status=Status.FULL))
            return
        if renewal:
            more = 0 if lasts else len(self._storage.get(target, self._unix_time()))
            self._reply(asked, replace(self._base(asked, lease_s=LEASE_S), more=more))
            return
        self._reply_with_values(asked, self._base(asked, lease_s=LEASE_S), self._lacking(asked), None)

    def _push(self, asked: _Asked) -> None:
        request = asked.request
        expected = self._watches.pushed(
            request.target, request.payload, asked.source, self._monotonic(), self._unix_time()
        )
        status = Status.OK if expected else Status.REFUSED
        self._reply(asked, self._base(asked, status=status))

    _HANDLERS = {  # noqa: RUF012 - a constant table
        Rpc.PING: _ping,
        Rpc.FIND_NODE: _find_node,
        Rpc.FIND: _find,
        Rpc.STORE: _store,
        Rpc.WATCH: _watch,
        Rpc.PUSH: _push,
    }

    def _base(
        self,
        asked: _Asked,
        *,
        contacts: tuple[Contact, ...] = (),
        status: Status = Status.OK,
        lease_s: int = 0,
    ) -> Reply:
        token = self._tokens.issue(asked.source, self._monotonic())
        return Reply(self._table.own_id, token, contacts=contacts, status=status, lease_s=lease_s)

    def _closest(self, asked: _Asked) -> tuple[Contact, ...]:
        request = asked.request
        contacts: list[Contact] = []
        for family, flag in _WANTS.items():
            if request.flags & flag:
                contacts += self._table.find_neighbors(
                    request.target, CONTACTS_IN_REPLY, family, good_only=True, exclude=request.node_id
                )
        return tuple(contacts)

    def _lacking(self, asked: _Asked) -> list[Stored]:
        """What the asker lacks, from a point that its message id chooses."""
        request = asked.request
        return self._storage.missing(request.target, request.payload, self._unix_time(), asked.message_id)

    def _size(self, asked: _Asked, reply: Reply) -> int:
        return len(encode_reply(asked.message_id, asked.request.rpc, reply))

    def _reply(self, asked: _Asked, reply: Reply) -> None:
        """Without a proven address, contacts are left out until the reply is within the limit."""
        contacts = list(reply.contacts)
        datagram = encode_reply(asked.message_id, asked.request.rpc, reply)
        while not asked.proven and len(datagram) > AMPLIFICATION * asked.size:
            if not contacts:
                self._drops.count("dht", "amplification")
                return
            contacts.pop()
            reply = replace(reply, contacts=tuple(contacts))
            datagram = encode_reply(asked.message_id, asked.request.rpc, reply)
        self._send(datagram, asked.source)

    def _reply_with_values(self, asked: _Asked, base: Reply, lacking: list[Stored], room: int | None) -> None:
        datagrams: list[bytes] = []
        for stored in lacking[:MAX_VALUES_IN_REPLY]:
            datagram = encode_value(asked.message_id, stored.envelope)
            if room is not None:
                room -= len(datagram) + 2  # the counts may take an octet more each
                if room < 0:
                    break
            datagrams.append(datagram)
        self._reply(asked, replace(base, values=len(datagrams), more=len(lacking) - len(datagrams)))
        for datagram in datagrams:
            self._send(datagram, asked.source)
