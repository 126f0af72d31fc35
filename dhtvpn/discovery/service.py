"""The answering side: what a node does with the six requests. Table of handlers at the end of the class."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from dhtvpn.discovery.allowance import Allowance
from dhtvpn.discovery.contact import IPV4, IPV6, Contact
from dhtvpn.discovery.limits import AnswerLimit
from dhtvpn.discovery.reader import Watches
from dhtvpn.discovery.routing import RoutingTable
from dhtvpn.discovery.rpc import Send
from dhtvpn.discovery.storage import Outcome, Storage, Stored
from dhtvpn.discovery.subscriptions import LEASE_S, Subscriptions
from dhtvpn.discovery.tokens import TokenIssuer
from dhtvpn.discovery.wire import (
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

    met: Callable[[Request, Endpoint, Allowance], None]
    """A request came from this endpoint; its id is only claimed. What is sent there because of it must be
    taken from the allowance, which also says whether the address is proven."""

    stored: Callable[[bytes, bytes, Endpoint | None], None]
    """(dht_key, envelope, source): a topic changed here."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request, with where it came from and whether that address is proven."""

    message_id: bytes
    request: Request
    source: Endpoint
    allowance: Allowance


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
        limit: AnswerLimit,
        hooks: Hooks,
        monotonic: Callable[[], float],
        unix_time: Callable[[], float],
    ) -> None:
        self._send, self._drops, self._hooks = send, drops, hooks
        self._table, self._storage, self._tokens = table, storage, tokens
        self._subscriptions, self._watches = subscriptions, watches
        self._monotonic, self._unix_time = monotonic, unix_time
        self._limit = limit

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
        if request.node_id == self._table.own.towards(source):
            self._drops.count("dht", "own_id")
            return
        proven = self._tokens.valid(request.token, source, now)
        if proven:
            self._limit.proven(source, now)
        asked = _Asked(message_id, request, source, Allowance(size, proven=proven))
        self._HANDLERS[request.rpc](self, asked)
        self._hooks.met(request, source, asked.allowance)

    def _ping(self, asked: _Asked) -> None:
        """The asker may compare clocks; ours may be anything, so it is cut to what the wire carries."""
        unix_time = min(max(int(self._unix_time()), 0), MAX_UNIX_TIME)
        self._reply(asked, replace(self._base(asked), unix_time=unix_time))

    def _find_node(self, asked: _Asked) -> None:
        self._reply(asked, self._base(asked, contacts=self._closest(asked)))

    def _find(self, asked: _Asked) -> None:
        """Contacts first; values follow in datagrams of their own, as far as the address is proven."""
        base = self._base(asked, contacts=self._closest(asked))
        self._reply_with_values(asked, base, self._lacking(asked))

    def _store(self, asked: _Asked) -> None:
        if not asked.allowance.proven:
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
        if not asked.allowance.proven:
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
        self._reply_with_values(asked, self._base(asked, lease_s=LEASE_S), self._lacking(asked))

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
        own_id = self._table.own.towards(asked.source)
        return Reply(own_id, token, contacts, status=status, lease_s=lease_s, seen=asked.source)

    def _closest(self, asked: _Asked) -> tuple[Contact, ...]:
        request = asked.request
        contacts: list[Contact] = []
        for family, flag in _WANTS.items():
            if request.flags & flag:
                contacts += self._table.to_tell(
                    request.target, CONTACTS_IN_REPLY, family, self._monotonic(), exclude=request.node_id
                )
        return tuple(contacts)

    def _lacking(self, asked: _Asked) -> list[Stored]:
        """What the asker lacks, from a point that its message id chooses."""
        request = asked.request
        return self._storage.missing(request.target, request.payload, self._unix_time(), asked.message_id)

    def _encode(self, asked: _Asked, reply: Reply) -> bytes:
        return encode_reply(asked.message_id, asked.request.rpc, reply)

    def _reply(self, asked: _Asked, reply: Reply) -> None:
        """Without a proven address, contacts are left out until the reply is within the limit."""
        contacts = list(reply.contacts)
        datagram = self._encode(asked, reply)
        while not asked.allowance.take(len(datagram)):
            if not contacts:
                self._drops.count("dht", "amplification")
                return
            contacts.pop()
            datagram = self._encode(asked, replace(reply, contacts=tuple(contacts)))
        self._send(datagram, asked.source)

    def _reply_with_values(self, asked: _Asked, base: Reply, lacking: list[Stored]) -> None:
        """As many values as may go beside the whole reply; the rest is counted in ``more``."""
        full = replace(base, values=MAX_VALUES_IN_REPLY, more=len(lacking))  # the longest that it can get
        lengths = [len(self._encode(asked, full))]
        datagrams: list[bytes] = []
        for stored in lacking[:MAX_VALUES_IN_REPLY]:
            datagram = encode_value(asked.message_id, stored.envelope)
            if not asked.allowance.has(*lengths, len(datagram)):
                break
            lengths.append(len(datagram))
            datagrams.append(datagram)
        self._reply(asked, replace(base, values=len(datagrams), more=len(lacking) - len(datagrams)))
        for datagram in datagrams:
            if asked.allowance.take(len(datagram)):
                self._send(datagram, asked.source)
        if datagrams:
            self._limit.sent_values(asked.source, len(datagrams))
