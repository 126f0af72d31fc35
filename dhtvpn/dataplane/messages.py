"""What the control process and the engine say to each other: one CBOR map per message.

The transport is a pair of connected AF_UNIX sockets of type SOCK_SEQPACKET, so a message is never split or
joined. ``docs/protocol/engine.md`` is the page; tests/unit/dataplane/test_messages.py holds it.

Both ends are ours, yet what comes is checked in full: a message with a missing, extra or ill-typed field is
a DecodeError, never a surprise later on.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

import cbor2

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.mesh.relay_wire import ID_SIZE

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_MESSAGE: Final = 128 * 1024  # bytes, ours: under the kernel's 208 KiB default for one AF_UNIX message
MAX_FRAME: Final = 16 * 1024  # bytes of one control frame, ours: many times what any frame needs
KEY_SIZE: Final = 32
MAX_KNOWN_ENDPOINTS: Final = 256  # remembered in both spellings: each control frame has its source with it
OFFLOADS: Final = (
    "vnet_header",  # packets stand behind a virtio header at the device
    "tso4",  # trains of TCP segments at the device, IPv4
    "tso6",  # the same for IPv6
    "uso",  # trains of UDP datagrams at the device
    "udp_segment",  # runs of datagrams are sent with one call (UDP_SEGMENT)
    "udp_gro",  # runs are received with one call (UDP_GRO)
    "kernel_demux",  # the kernel steers data messages to the engine's sockets
    "aes",  # AES instructions: AES-256-GCM where the peer has them too
)
"""What may help an engine to move packets, in the order in which it is shown."""


@dataclass(frozen=True, slots=True)
class Configure:
    """The addresses that packets may be delivered to, and the MTU in bytes of every peer that is made
    later and has no path MTU of its own. First of all, and again when an address moves."""

    local_addresses: tuple[Address, ...]
    mtu: int


@dataclass(frozen=True, slots=True)
class SetPeer:
    """Make a peer, or replace the allowed IPs of a known one; ``endpoint`` None leaves a known one as is."""

    peer: int
    allowed_ips: tuple[Network, ...]
    endpoint: Endpoint | None


@dataclass(frozen=True, slots=True)
class RemovePeer:
    """Forget a peer, its keys and its queue."""

    peer: int


@dataclass(frozen=True, slots=True)
class InstallKeypair:
    """A keypair from a completed handshake. ``created_at`` is CLOCK_MONOTONIC, which both processes share."""

    peer: int
    local_index: int
    remote_index: int
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)
    initiator: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class EraseKeypairs:
    """Forget every keypair of a peer, and what waits for one."""

    peer: int


@dataclass(frozen=True, slots=True)
class SetEndpoint:
    """Send to this endpoint from now on."""

    peer: int
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class SetVia:
    """There is a relay, called ``via``: a volunteer at ``endpoint``, or else the member that is peer number
    ``carrier``, and beyond it the members ``through``, in this order. Peers whose endpoint is a place beyond
    it (mesh.relayed) are sent to through it."""

    via: int
    endpoint: Endpoint | None
    carrier: int | None
    through: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoveVia:
    """Use relay ``via`` no more."""

    via: int


@dataclass(frozen=True, slots=True)
class SetOwnRelayIds:
    """The names that we are reached by through relays: of every epoch that members may be in."""

    relay_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SetRelayIds:
    """The names of a peer: first the one that it is reached by through relays now, then those of the other
    epochs that members may be in."""

    peer: int
    relay_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Forward:
    """Send on relay frames of members, so many octets a second; 0: none."""

    octets_per_s: int


@dataclass(frozen=True, slots=True)
class SendTo:
    """Like ``Send``, to ``endpoint`` for this once."""

    peer: int
    endpoint: Endpoint
    plaintext: bytes


@dataclass(frozen=True, slots=True)
class SetSource:
    """Send from this address of ours until the peer's endpoint is another one."""

    peer: int
    address: Address


@dataclass(frozen=True, slots=True)
class SetFeatures:
    """What the peer said that it takes: trains of TCP, trains of UDP, data messages sealed with AES-256-GCM
    (type 5), and blocks."""

    peer: int
    trains: bool
    udp_trains: bool
    aes: bool
    blocks: bool


@dataclass(frozen=True, slots=True)
class SetPathMtu:
    """The longest inner packet, in bytes, that the way to a peer takes."""

    peer: int
    mtu: int


@dataclass(frozen=True, slots=True)
class Send:
    """Seal and send ``plaintext``: a control frame, or a keepalive where it is empty."""

    peer: int
    plaintext: bytes


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Seal ``plaintext`` without more padding, and send it unfragmented or not at all."""

    peer: int
    plaintext: bytes


@dataclass(frozen=True, slots=True)
class Datagram:
    """A data message that the control process received, where the kernel cannot steer it to the engine."""

    data: bytes
    source: Endpoint


@dataclass(frozen=True, slots=True)
class Resolve:
    """Ask who holds a destination inside these networks that no peer has; nothing is asked before."""

    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class NoMember:
    """Nobody holds ``destination``: tell the senders of what waits for it."""

    destination: Address


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine runs. Sent once, first. ``offloads`` are those of :data:`OFFLOADS` that are on."""

    offloads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """An authenticated plaintext that is no IP packet, with its padding, and where it came from."""

    peer: int
    plaintext: bytes
    source: Endpoint


@dataclass(frozen=True, slots=True)
class Activity:
    """What happened to a peer since the last one. Byte counts are UDP payload since the engine started.

    ``strayed_bytes``, of ``rx_bytes``, came by another path than the one that is sent on.
    ``sent`` and ``received`` tell of data (packets and control frames), the keepalive flags of empty
    messages; all of them were authenticated.
    """

    peer: int
    sent: bool
    received: bool
    rx_bytes: int
    tx_bytes: int
    endpoint: Endpoint | None
    keepalive_sent: bool = False
    keepalive_received: bool = False
    strayed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class KeypairConfirmed:
    """The initiator has used the keypair that it made with us: the responder may send with it now."""

    peer: int
    local_index: int


@dataclass(frozen=True, slots=True)
class NeedHandshake:
    """There is something to send and no usable keypair. At most once a second per peer."""

    peer: int


@dataclass(frozen=True, slots=True)
class EndpointRoamed:
    """An authenticated message came from a new place; the engine sends there already."""

    peer: int
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class HeardElsewhere:
    """An authenticated message came by another path, and one of the two is relayed: which one is used is
    the control process's to say. Once a second at most for each peer."""

    peer: int
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class ProbeRefused:
    """This machine's link does not take a probe of ``size`` bytes of plaintext whole."""

    peer: int
    size: int


@dataclass(frozen=True, slots=True)
class WhoHolds:
    """A packet goes to ``destination``, which no peer has. Answered by a ``SetPeer`` with that address, or
    by ``NoMember``; without an answer the engine gives up. Once for each destination while it waits."""

    destination: Address


@dataclass(frozen=True, slots=True)
class DropCounts:
    """Every drop counter of the engine, absolute, by ``room.reason``. Sent when one has changed."""

    counts: dict[str, int]


PeerCommand = (
    InstallKeypair
    | EraseKeypairs
    | SetEndpoint
    | SetSource
    | SetFeatures
    | SetPathMtu
    | SetRelayIds
    | Send
    | SendTo
    | SendProbe
)
"""Of a peer that there is."""
RelayCommand = SetVia | RemoveVia | SetOwnRelayIds | Forward
CommonCommand = Configure | SetPeer | RemovePeer | Datagram | Resolve | NoMember | RelayCommand
Command = CommonCommand | PeerCommand
Event = (
    ControlFrame
    | Activity
    | KeypairConfirmed
    | NeedHandshake
    | EndpointRoamed
    | HeardElsewhere
    | ProbeRefused
    | WhoHolds
    | DropCounts
)
Message = Command | Event | Ready

_NAMES: Final[dict[str, type[Any]]] = {
    "configure": Configure,
    "set_peer": SetPeer,
    "remove_peer": RemovePeer,
    "install_keypair": InstallKeypair,
    "erase_keypairs": EraseKeypairs,
    "set_endpoint": SetEndpoint,
    "set_via": SetVia,
    "remove_via": RemoveVia,
    "set_own_relay_ids": SetOwnRelayIds,
    "set_relay_ids": SetRelayIds,
    "forward": Forward,
    "send_to": SendTo,
    "set_source": SetSource,
    "set_features": SetFeatures,
    "set_path_mtu": SetPathMtu,
    "send": Send,
    "send_probe": SendProbe,
    "datagram": Datagram,
    "resolve": Resolve,
    "no_member": NoMember,
    "ready": Ready,
    "control_frame": ControlFrame,
    "activity": Activity,
    "keypair_confirmed": KeypairConfirmed,
    "need_handshake": NeedHandshake,
    "endpoint_roamed": EndpointRoamed,
    "heard_elsewhere": HeardElsewhere,
    "probe_refused": ProbeRefused,
    "who_holds": WhoHolds,
    "drop_counts": DropCounts,
}
_NAME_OF: Final = {kind: name for name, kind in _NAMES.items()}


class _Codec(NamedTuple):
    """How a field's value becomes CBOR and comes back. ``load`` raises ValueError or TypeError."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _exactly(kind: type, allowed: Callable[[Any], bool] = lambda _: True) -> _Codec:
    def load(value: Any) -> Any:
        if type(value) is not kind or not allowed(value):
            raise ValueError
        return value

    return _Codec(_same, load)


def _tuple_of(dump: Callable[[Any], Any], load: Callable[[Any], Any]) -> _Codec:
    def load_all(value: Any) -> Any:
        if type(value) is not list:
            raise ValueError
        return tuple(load(item) for item in value)

    return _Codec(lambda values: [dump(item) for item in values], load_all)


def _load_endpoint(value: Any) -> Endpoint:
    if type(value) is not bytes:
        raise ValueError
    return _unpacked(value)


@lru_cache(maxsize=MAX_KNOWN_ENDPOINTS)
def _unpacked(value: bytes) -> Endpoint:
    return Endpoint.unpack_local(value)


@lru_cache(maxsize=MAX_KNOWN_ENDPOINTS)
def _packed(endpoint: Endpoint) -> bytes:
    return endpoint.pack_local()


def _load_address(value: Any) -> Address:
    if type(value) is not bytes:
        raise ValueError
    return ip_address(value)


def _load_network(value: Any) -> Network:
    address, prefix_length = value
    if type(address) is not bytes or type(prefix_length) is not int:
        raise ValueError
    return ip_network((address, prefix_length))


def _load_offload(value: Any) -> str:
    if type(value) is not str or value not in OFFLOADS:
        raise ValueError
    return value


def _load_relay_id(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != ID_SIZE:
        raise ValueError
    return value


def _load_counts(value: Any) -> dict[str, int]:
    if type(value) is not dict:
        raise ValueError
    if not all(type(name) is str and type(count) is int for name, count in value.items()):
        raise ValueError
    return value


_NUMBER = _exactly(int, lambda value: 0 <= value < 1 << 63)
_INDEX = _exactly(int, lambda value: 0 <= value < 1 << 32)
_KEY = _exactly(bytes, lambda value: len(value) == KEY_SIZE)
_FLAG = _exactly(bool)
_OPTIONAL_ENDPOINT = _Codec(
    lambda value: None if value is None else _packed(value),
    lambda value: None if value is None else _load_endpoint(value),
)
_FIELDS: Final[dict[str, _Codec]] = {
    "peer": _NUMBER,
    "via": _INDEX,
    "carrier": _Codec(_same, lambda value: None if value is None else _NUMBER.load(value)),
    "through": _tuple_of(_same, _load_relay_id),
    "octets_per_s": _NUMBER,
    "relay_ids": _tuple_of(_same, _load_relay_id),
    "strayed_bytes": _NUMBER,
    "mtu": _exactly(int, lambda value: 68 <= value <= 65535),
    "local_addresses": _tuple_of(lambda address: address.packed, _load_address),
    "allowed_ips": _tuple_of(
        lambda network: [network.network_address.packed, network.prefixlen], _load_network
    ),
    "networks": _tuple_of(lambda network: [network.network_address.packed, network.prefixlen], _load_network),
    "destination": _Codec(lambda address: address.packed, _load_address),
    "address": _Codec(lambda address: address.packed, _load_address),
    "local_index": _INDEX,
    "remote_index": _INDEX,
    "send_key": _KEY,
    "receive_key": _KEY,
    "initiator": _FLAG,
    "created_at": _exactly(float),
    "plaintext": _exactly(bytes, lambda value: len(value) <= MAX_FRAME),
    "data": _exactly(bytes),
    "source": _Codec(_packed, _load_endpoint),
    "endpoint": _OPTIONAL_ENDPOINT,
    "trains": _FLAG,
    "udp_trains": _FLAG,
    "aes": _FLAG,
    "blocks": _FLAG,
    "sent": _FLAG,
    "received": _FLAG,
    "keepalive_sent": _FLAG,
    "keepalive_received": _FLAG,
    "rx_bytes": _NUMBER,
    "tx_bytes": _NUMBER,
    "offloads": _tuple_of(_same, _load_offload),
    "size": _NUMBER,
    "counts": _Codec(_same, _load_counts),
}
_FIELD_NAMES: Final = {kind: tuple(field.name for field in fields(kind)) for kind in _NAME_OF}
_NEEDS_ENDPOINT: Final = frozenset((SetEndpoint, SendTo, EndpointRoamed, HeardElsewhere))


def encode(message: Message) -> bytes:
    """The message as bytes. Raises ValueError past MAX_MESSAGE."""
    kind = type(message)
    content: dict[str, Any] = {"kind": _NAME_OF[kind]}
    for name in _FIELD_NAMES[kind]:
        content[name] = _FIELDS[name].dump(getattr(message, name))
    data = cbor2.dumps(content)
    if len(data) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(data)} bytes to or from the engine")
    return data


def decode(data: bytes) -> Message:
    """The reverse of :func:`encode`. Raises DecodeError("size", "format", "kind", "field")."""
    if len(data) > MAX_MESSAGE:
        raise DecodeError("size")
    try:
        content = cbor2.loads(data)
    except Exception as error:  # a third-party parser: whatever it raises, the bytes are wrong
        raise DecodeError("format") from error
    if type(content) is not dict:
        raise DecodeError("format")
    name = content.pop("kind", None)
    kind = _NAMES.get(name) if type(name) is str else None
    if kind is None:
        raise DecodeError("kind")
    if content.keys() != set(_FIELD_NAMES[kind]):
        raise DecodeError("field")
    try:
        values = {name: _FIELDS[name].load(value) for name, value in content.items()}
    except (ValueError, TypeError, DecodeError) as error:
        raise DecodeError("field") from error
    if kind in _NEEDS_ENDPOINT and values["endpoint"] is None:
        raise DecodeError("field")
    message: Message = kind(**values)
    return message


def decode_command(data: bytes) -> Command:
    """:func:`decode` for what the engine may be told. Raises DecodeError also for anything else."""
    message = decode(data)
    if not isinstance(message, Command):
        raise DecodeError("kind")
    return message


def decode_event(data: bytes) -> Event | Ready:
    """:func:`decode` for what the engine may say. Raises DecodeError also for anything else."""
    message = decode(data)
    if not isinstance(message, Event | Ready):
        raise DecodeError("kind")
    return message
