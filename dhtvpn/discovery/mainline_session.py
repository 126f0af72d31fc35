"""A session of libtorrent in our event loop: mutable items of the BitTorrent DHT are got and put (BEP 44).

libtorrent has its own threads and UDP sockets. What it has to say it leaves in a queue and writes an octet
to a pipe, which wakes our event loop.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from nacl.signing import SigningKey

from dhtvpn.discovery.libtorrent_session import end_tcp_listeners, interfaces, load, settings
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError, SystemRefusedError

log = logging.getLogger(__name__)

MAX_VALUE: Final = 990
"""Octets of a value: with its length in front, within BEP 44's 1,000. libtorrent ignores longer ones."""

MAX_AT_ONCE: Final = 32
"""Searches and stores that run at a time; others wait their turn."""

NOTHING_S: Final = 5.0
"""A search that has brought nothing by now finds nothing, though libtorrent waits for dead nodes: 15 s."""

MORE_S: Final = 1.0
"""After a value, a newer one is waited for this long: what is there already is worth more."""

PUT_DEADLINE_S: Final = 40.0
"""libtorrent waits for dead nodes, 15 s at most, in the search for the closest and in storing."""

FORGOTTEN_S: Final = 60.0
"""What was begun this long ago is over, whatever libtorrent says, and takes no answer from what follows."""

KNOW_S: Final = (0.3, 0.3, 0.5, 1.0, 2.0, 5.0, 30.0)
"""Pauses between two looks at the routing table; the last one repeats."""

MAX_NODES: Final = 200
FEW_NODES: Final = 4
BLOCKED: Final = 1
NO_DESCRIPTOR: Final = -1
"""Writing there fails and does nothing. A Python function as the notice would be called by libtorrent's
thread under its lock, and would wait for the interpreter's, which a caller of libtorrent may hold."""

_CLAMP_LOW, _CLAMP_CLEAR, _CLAMP_SET = 248, 63, 64


@dataclass
class _Get:
    """A search under way."""

    began: float
    values: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)
    """None is the end."""


@dataclass
class _Put:
    """A value being stored."""

    began: float
    stored: "asyncio.Future[int]"


_Item = tuple[bytes, bytes]
_Operation = TypeVar("_Operation", _Get, _Put)


class MainlineSession:
    """Gets and puts mutable items (BEP 44). Made by :meth:`open`.

    libtorrent answers by item, in the order in which it was asked; so every operation stays in its item's
    queue until its answer comes, though nobody waits for it any more.
    """

    def __init__(self, libtorrent: Any, session: Any, drops: Drops | None = None) -> None:
        self._lt, self._session = libtorrent, session
        self._drops = drops or Drops()
        self._loop = asyncio.get_running_loop()
        self._gets: dict[_Item, deque[_Get]] = {}
        self._puts: dict[_Item, deque[_Put]] = {}
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._listening: tuple[str, ...] = ()
        self._own_addresses: dict[bool, str] = {}
        self.refused = ""
        """Why libtorrent does not listen, where it does not."""
        self.nodes: list[Endpoint] = []
        """Of the routing table, as of the last look."""
        self.has_nodes = asyncio.Event()
        """Set once there were FEW_NODES."""
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop.add_reader(self._wake, self._read_alerts)
        session.set_alert_fd(self._woken)
        self._loop.call_soon(self._read_alerts)  # it writes for the first alert in the queue only
        self._knowing = asyncio.create_task(self._keep_knowing(), name="mainline nodes")

    @classmethod
    async def open(
        cls,
        listen: Sequence[str],
        routers: Iterable[Endpoint],
        nodes: Iterable[Endpoint] = (),
        *,
        read_only: bool = True,
        restricted: bool = True,
        drops: Drops | None = None,
    ) -> "MainlineSession":
        """Listen on a free UDP port of each address of ``listen``, ask ``routers`` and ``nodes`` for others.

        ``routers`` never become part of the routing table, ``nodes`` do. ``read_only``: use the DHT without
        serving it (BEP 43). ``restricted`` False: several nodes may have one address, for a private DHT.
        Raises SystemRefusedError where libtorrent is missing, or refuses.
        """
        libtorrent = load()
        chosen = settings(libtorrent, listen, routers, read_only=read_only, restricted=restricted)
        try:
            session = await asyncio.to_thread(libtorrent.session, chosen)
        except RuntimeError as error:
            raise SystemRefusedError(f"mainline: libtorrent does not start ({error})") from error
        opened = cls(libtorrent, session, drops)
        opened._listening = tuple(listen)
        for node in nodes:
            session.add_dht_node((node.host, node.port))
        return opened

    def listen(self, addresses: Sequence[str]) -> None:
        """Be at these addresses from now on: the machine has moved."""
        if tuple(addresses) != self._listening:
            self._listening = tuple(addresses)
            self.refused = ""
            self._session.apply_settings({"listen_interfaces": interfaces(addresses)})

    @property
    def port(self) -> int:
        """The UDP port that it listens on; 0 while it does not."""
        return int(self._session.listen_port())

    async def get(self, public_key: bytes, salt: bytes) -> AsyncGenerator[bytes, None]:
        """Values as storing nodes answer, checked against ``public_key``; a newer one comes later. Ends when
        the closest nodes have answered, MORE_S after a value, or NOTHING_S without any."""
        async with self._turns:
            if self._session is None:
                return
            search = _Get(self._loop.time())
            _enqueue(self._gets, (public_key, salt), search)
            self._session.dht_get_mutable_item(public_key, salt)
            value = await _next(search, NOTHING_S)
            while value is not None:
                yield value
                value = await _next(search, MORE_S)

    async def put(self, signing_key: SigningKey, salt: bytes, value: bytes) -> int:
        """Store ``value`` in place of what is there; returns how many nodes took it, 0 after PUT_DEADLINE_S.
        Raises ValueError for more than MAX_VALUE octets."""
        if len(value) > MAX_VALUE:
            raise ValueError(f"a value has at most {MAX_VALUE} octets, not {len(value)}")
        public_key = bytes(signing_key.verify_key)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PUT_DEADLINE_S), self._turns:
                if self._session is None:
                    return 0
                storing = _Put(self._loop.time(), self._loop.create_future())
                _enqueue(self._puts, (public_key, salt), storing)
                self._session.dht_put_mutable_item(_expanded(signing_key), public_key, value, salt)
                return await storing.stored
        return 0

    async def close(self) -> None:
        """End libtorrent and its threads. Safe to call twice."""
        if self._session is None:
            return
        self._knowing.cancel()
        await asyncio.gather(self._knowing, return_exceptions=True)
        self._loop.remove_reader(self._wake)
        self._session.set_alert_fd(NO_DESCRIPTOR)  # the pipe's number may be another file's soon
        sessions, self._session = [self._session], None
        self._give_up()
        await asyncio.to_thread(_end, sessions)
        os.close(self._wake)
        os.close(self._woken)

    # What libtorrent says

    def _read_alerts(self) -> None:
        if self._session is None:
            return
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 64)
        lt, overflowed = self._lt, False
        for alert in self._session.pop_alerts():  # their fields are gone at the next pop
            if isinstance(alert, lt.alerts_dropped_alert):
                overflowed = True
            elif isinstance(alert, lt.dht_mutable_item_alert):
                self._found((bytes(alert.key), bytes(alert.salt)), _value(alert), final=alert.authoritative)
            elif isinstance(alert, lt.dht_put_alert):
                self._stored((bytes(alert.public_key), bytes(alert.salt)), alert.num_success)
            elif isinstance(alert, lt.external_ip_alert):
                self._avoid(str(alert.external_address))
            elif isinstance(alert, lt.listen_succeeded_alert):
                end_tcp_listeners(self.port)
            elif isinstance(alert, lt.listen_failed_alert) and "sock_accept" not in alert.message():
                self.refused = alert.message()
                log.warning("mainline: %s", self.refused)
        if overflowed:
            self._drops.count("mainline", "alerts")
            log.warning("mainline: libtorrent had more to say than it could queue; all searches end")
            self._give_up()

    def _avoid(self, own_address: str) -> None:
        """Ask nobody at our own public address. libtorrent's stores do not say that we are read-only, as its
        searches do (BEP 43): storing nodes take us for one of them, and a search that is handed our own
        address would wait 15 s for it."""
        self._own_addresses[":" in own_address] = own_address
        addresses = self._lt.ip_filter()
        for address in self._own_addresses.values():
            addresses.add_rule(address, address, BLOCKED)
        self._session.set_ip_filter(addresses)

    def _give_up(self) -> None:
        """End every operation as if nothing had been found or stored: their answers may be lost."""
        gets, self._gets = self._gets, {}
        puts, self._puts = self._puts, {}
        for searches in gets.values():
            for search in searches:
                search.values.put_nowait(None)
        for stores in puts.values():
            for storing in stores:
                if not storing.stored.done():
                    storing.stored.set_result(0)

    def _found(self, item: _Item, value: bytes | None, *, final: bool) -> None:
        searches = self._gets.get(item)
        if not searches:
            return
        if value is not None:
            for search in searches:
                search.values.put_nowait(value)
        if final:  # searches for one item begin and end in the same order, or it does no harm
            searches.popleft().values.put_nowait(None)
            if not searches:
                del self._gets[item]

    def _stored(self, item: _Item, count: int) -> None:
        stores = self._puts.get(item)
        if not stores:
            return
        stored = stores.popleft().stored
        if not stores:
            del self._puts[item]
        if not stored.done():
            stored.set_result(count)

    async def _keep_knowing(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(KNOW_S[min(number, len(KNOW_S) - 1)])
            number += 1
            state = await asyncio.to_thread(self._dht_state)
            self.nodes = _endpoints(state)[:MAX_NODES]
            if len(self.nodes) >= FEW_NODES:
                self.has_nodes.set()

    def _dht_state(self) -> dict[bytes, Any]:
        parameters = self._session.session_state(self._lt.save_state_flags_t.save_dht_state)
        state = self._lt.bdecode(bytes(self._lt.write_session_params_buf(parameters)))
        found = state.get(b"dht state", {}) if isinstance(state, dict) else {}
        return found if isinstance(found, dict) else {}


def _enqueue(queues: dict[_Item, deque[_Operation]], item: _Item, operation: _Operation) -> None:
    """``operation`` gets its answer after those of ``item`` that began before, but for the forgotten ones."""
    queue = queues.setdefault(item, deque())
    while queue and operation.began - queue[0].began > FORGOTTEN_S:
        queue.popleft()
    queue.append(operation)


async def _next(search: _Get, patience_s: float) -> bytes | None:
    """None at the end, and when nothing comes. (wait_for of Python 3.11 may swallow a cancellation.)"""
    try:
        async with asyncio.timeout(patience_s):
            return await search.values.get()
    except TimeoutError:
        return None


def _expanded(signing_key: SigningKey) -> bytes:
    """The private key as BEP 44's reference code takes it: SHA-512 of the seed, clamped (RFC 8032, 5.1.5)."""
    digest = bytearray(hashlib.sha512(bytes(signing_key)).digest())
    digest[0] &= _CLAMP_LOW
    digest[31] = digest[31] & _CLAMP_CLEAR | _CLAMP_SET
    return bytes(digest)


def _value(alert: Any) -> bytes | None:
    """None for an item that is absent, or is no octet string."""
    try:
        item = alert.item
    except (MemoryError, RuntimeError, UnicodeError, ValueError, TypeError):
        return None
    return item if isinstance(item, bytes) and 0 < len(item) <= MAX_VALUE else None


def _endpoints(state: Mapping[bytes, Any]) -> list[Endpoint]:
    """The nodes of a saved routing table: compact addresses, 6 or 18 octets each."""
    found: list[Endpoint] = []
    for name, size in ((b"nodes", 6), (b"nodes6", 18)):
        nodes = state.get(name, [])
        for compact in nodes if isinstance(nodes, list) else []:
            if isinstance(compact, bytes) and len(compact) == size and compact[-2:] != b"\0\0":
                with contextlib.suppress(DecodeError):
                    found.append(Endpoint.unpack(compact))
    return found


def _end(sessions: list[Any]) -> None:
    """The destructor waits for libtorrent's threads."""
    sessions.clear()
