"""The DHT's datagrams: rpcudp's framing (kind, 20-octet message id, MessagePack), our messages.

Octet 0 is the kind: 0 request, 1 reply, 2 value (one envelope that belongs to a reply). The port adds
and removes the prefix octet 0xD7 in front. Layouts are in docs/protocol/dht.md, byte-exact vectors in
tests/vectors/discovery/datagrams.json.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from typing import Any

from dhtvpn.discovery import msgpack
from dhtvpn.discovery.contact import IPV4, IPV6, Contact, may_be_told
from dhtvpn.discovery.directory import KEY_LENGTH, MAX_ENVELOPE
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

KIND_REQUEST, KIND_REPLY, KIND_VALUE = 0, 1, 2
MESSAGE_ID_LENGTH = 20
HEADER_LENGTH = 1 + MESSAGE_ID_LENGTH
TOKEN_LENGTH = 8

MAX_DATAGRAM = 1200
"""Octets; passes every path that IPv6 passes (RFC 8200 section 5: 1280) with tunnels to spare."""

PADDED_REQUEST = 400
"""Octets of a request that has no token and may be answered at length."""

AMPLIFICATION = 3
"""Octets of reply per octet of request until the address is proven (RFC 9000 section 8.1 uses the same)."""

CONTACTS_IN_REPLY = 8
"""Per address family; BEP 5 uses 8."""

PACKED_CONTACT = {IPV4: 26, IPV6: 38}
"""Octets of a packed contact, by family."""

PACKED_ENDPOINT = {IPV4: 6, IPV6: 18}
"""Octets of a packed endpoint, by family."""

HAVE_LENGTH = 14
"""Octets of one entry of ``have``: the slot's first 6, then the sequence (8)."""

MAX_HAVE = 64
"""Entries of ``have``, so that the request fits MAX_DATAGRAM."""

RENEWAL = b"\x01"
"""In place of ``have`` in a watch: "I have what you held when you granted the lease, and what you pushed"."""

MAX_VALUES_IN_REPLY = 32
"""Value datagrams per reply (about 30 KB: no receive buffer overflows); the rest is counted in ``more``."""

MAX_LEASE_S = 600
"""No storing node may make us believe in a longer subscription."""

MAX_UNIX_TIME = 0xFFFFFFFF
"""Seconds; the clock in a ping reply has 32 bits, enough until 2106."""


class Rpc(Enum):
    """The six requests, by their name on the wire."""

    PING = "ping"
    FIND_NODE = "find_node"
    FIND = "find"
    STORE = "store"
    WATCH = "watch"
    PUSH = "push"


class Flags(IntFlag):
    """What the sender of a request is and wants."""

    WANT_IPV4 = 1
    WANT_IPV6 = 2
    READ_ONLY = 4
    """Do not add me to routing tables: strangers cannot reach me (BEP 43)."""


NO_FLAGS = Flags(0)


class Status(IntEnum):
    """The answer to store, watch and push."""

    OK = 0
    BAD_TOKEN = 1
    REFUSED = 2
    FULL = 3
    STALE = 4


@dataclass(frozen=True, slots=True)
class Request:
    """``target`` is a node id (find_node) or dht_key, ``b""`` for ping; ``payload`` is the envelope
    (store, push), or the ``have`` list (find, watch) or RENEWAL (watch)."""

    rpc: Rpc
    node_id: bytes
    token: bytes = b""
    flags: Flags = NO_FLAGS
    target: bytes = b""
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """Fields that an RPC does not use keep their default."""

    node_id: bytes
    token: bytes
    contacts: tuple[Contact, ...] = ()
    values: int = 0
    more: int = 0
    status: Status = Status.OK
    lease_s: int = 0
    unix_time: int = 0
    seen: Endpoint | None = None
    """Where the request came from, as the answering node saw it."""


def frame(kind: int, message_id: bytes, value: Any) -> bytes:
    """One datagram, without the port's prefix octet."""
    return bytes([kind]) + message_id + msgpack.pack(value)


def split(data: bytes) -> tuple[int, bytes, bytes]:
    """Kind, message id and MessagePack body. Raises DecodeError("size" or "kind")."""
    if not HEADER_LENGTH < len(data) <= MAX_DATAGRAM:
        raise DecodeError("size")
    if data[0] > KIND_VALUE:
        raise DecodeError("kind")
    return data[0], data[1:HEADER_LENGTH], data[HEADER_LENGTH:]


def encode_request(message_id: bytes, request: Request) -> bytes:
    """Without a token, find and find_node are padded to PADDED_REQUEST octets."""
    arguments: list[Any] = [request.node_id, request.token, int(request.flags)]
    if request.rpc is not Rpc.PING:
        arguments.append(request.target)
    if request.rpc not in (Rpc.PING, Rpc.FIND_NODE):
        arguments.append(request.payload)
    datagram = frame(KIND_REQUEST, message_id, [request.rpc.value, [*arguments, b""]])
    missing = PADDED_REQUEST - len(datagram)
    if request.token or request.rpc not in (Rpc.FIND, Rpc.FIND_NODE) or missing <= 0:
        return datagram
    padding = bytes(missing if missing <= 256 else missing - 1)  # bin 16 has one more octet of length
    return frame(KIND_REQUEST, message_id, [request.rpc.value, [*arguments, padding]])


def decode_request(body_untrusted: bytes) -> Request:
    """Raises DecodeError("msgpack" or "format")."""
    value = msgpack.unpack(body_untrusted)
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[1], list)):
        raise DecodeError("format", "not a request")
    try:
        rpc = Rpc(value[0])
    except (ValueError, TypeError):
        raise DecodeError("format", "unknown rpc") from None
    arguments = value[1]
    own = {Rpc.PING: 0, Rpc.FIND_NODE: 1}.get(rpc, 2)
    if len(arguments) != 4 + own:
        raise DecodeError("format", "number of arguments")
    node_id = _octets(arguments[0], KEY_LENGTH)
    token = _octets(arguments[1], 0, TOKEN_LENGTH)
    flags = _integer(arguments[2], 255)
    target = _octets(arguments[3], KEY_LENGTH) if own else b""
    payload = _payload(rpc, arguments[4]) if own > 1 else b""
    _octets_up_to(arguments[-1], MAX_DATAGRAM)
    return Request(rpc, node_id, token, Flags(flags & 7), target, payload)


def encode_reply(message_id: bytes, rpc: Rpc, reply: Reply) -> bytes:
    """The body is [node_id, token, seen, ...]; what follows depends on the RPC."""
    seen = reply.seen.pack() if reply.seen is not None else b""
    body: list[Any] = [reply.node_id, reply.token, seen]
    if rpc is Rpc.PING:
        body.append(reply.unix_time)
    if rpc in (Rpc.FIND_NODE, Rpc.FIND):
        for family in (IPV4, IPV6):
            body.append(b"".join(c.pack() for c in reply.contacts if c.family == family))
    if rpc in (Rpc.STORE, Rpc.WATCH, Rpc.PUSH):
        body.append(int(reply.status))
    if rpc is Rpc.WATCH:
        body.append(reply.lease_s)
    if rpc in (Rpc.FIND, Rpc.WATCH):
        body += [reply.values, reply.more]
    return frame(KIND_REPLY, message_id, body)


_REPLY_ITEMS = {Rpc.PING: 4, Rpc.FIND_NODE: 5, Rpc.FIND: 7, Rpc.STORE: 4, Rpc.WATCH: 7, Rpc.PUSH: 4}


def decode_reply(rpc: Rpc, body_untrusted: bytes, source: Endpoint) -> Reply:
    """A reply to ``rpc`` from ``source``; contacts that nobody should follow are left out.

    Raises DecodeError("msgpack", "format" or "endpoint").
    """
    value = msgpack.unpack(body_untrusted)
    if not isinstance(value, list) or len(value) != _REPLY_ITEMS[rpc]:
        raise DecodeError("format", "reply")
    node_id, token = _octets(value[0], KEY_LENGTH), _octets(value[1], 0, TOKEN_LENGTH)
    seen = _seen(value[2])
    values = more = lease_s = 0
    if rpc in (Rpc.FIND, Rpc.WATCH):
        values, more = _integer(value[5], MAX_VALUES_IN_REPLY), _integer(value[6], 0xFFFF)
    if rpc in (Rpc.FIND_NODE, Rpc.FIND):
        contacts = _contacts(value[3], IPV4, source) + _contacts(value[4], IPV6, source)
        return Reply(node_id, token, tuple(contacts), values, more, seen=seen)
    if rpc is Rpc.PING:
        return Reply(node_id, token, unix_time=_integer(value[3], MAX_UNIX_TIME), seen=seen)
    status = Status(_integer(value[3], max(Status)))
    if rpc is Rpc.WATCH:
        lease_s = _integer(value[4], MAX_LEASE_S)
    return Reply(node_id, token, (), values, more, status, lease_s, seen=seen)


def encode_value(message_id: bytes, envelope: bytes) -> bytes:
    """One envelope of the reply that has the same message id."""
    return frame(KIND_VALUE, message_id, envelope)


def decode_value(body_untrusted: bytes) -> bytes:
    """The envelope, not yet verified. Raises DecodeError("msgpack" or "format")."""
    return _octets_up_to(msgpack.unpack(body_untrusted), MAX_ENVELOPE)


def pack_have(entries: Iterable[tuple[bytes, int]]) -> bytes:
    """(slot, sequence) pairs that the asker holds already; at most MAX_HAVE of them are told."""
    packed = [slot[:6] + sequence.to_bytes(8, "big") for slot, sequence in entries]
    return b"".join(packed[:MAX_HAVE])


def unpack_have(have: bytes) -> dict[bytes, int]:
    """Slot prefix (6 octets) to sequence; ``have`` has passed decode_request."""
    steps = range(0, len(have), HAVE_LENGTH)
    return {have[i : i + 6]: int.from_bytes(have[i + 6 : i + HAVE_LENGTH], "big") for i in steps}


def _payload(rpc: Rpc, value_untrusted: Any) -> bytes:
    if rpc in (Rpc.STORE, Rpc.PUSH):
        return _octets_up_to(value_untrusted, MAX_ENVELOPE)
    have = _octets_up_to(value_untrusted, MAX_HAVE * HAVE_LENGTH)
    if len(have) % HAVE_LENGTH and not (rpc is Rpc.WATCH and have == RENEWAL):
        raise DecodeError("format", "have")
    return have


def _contacts(packed_untrusted: Any, family: int, source: Endpoint) -> list[Contact]:
    size = PACKED_CONTACT[family]
    packed = _octets_up_to(packed_untrusted, CONTACTS_IN_REPLY * size)
    if len(packed) % size:
        raise DecodeError("format", "contacts")
    contacts: dict[bytes, Contact] = {}
    for start in range(0, len(packed), size):
        try:
            contact = Contact.unpack(packed[start : start + size])
        except DecodeError:
            continue  # port 0: one bad contact does not spoil the others
        if contact.family == family and contact.fits and may_be_told(contact.endpoint, source):
            contacts.setdefault(contact.node_id, contact)
    return list(contacts.values())


def _seen(packed_untrusted: Any) -> Endpoint | None:
    packed = _octets(packed_untrusted, 0, *PACKED_ENDPOINT.values())
    return Endpoint.unpack(packed) if packed else None


def _octets(value: Any, *lengths: int) -> bytes:
    if not isinstance(value, bytes) or len(value) not in lengths:
        raise DecodeError("format", "byte string")
    return value


def _octets_up_to(value: Any, limit: int) -> bytes:
    if not isinstance(value, bytes) or len(value) > limit:
        raise DecodeError("format", "byte string")
    return value


def _integer(value: Any, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise DecodeError("format", "integer")
    return value
