"""What bytes from the network reach, each with datagrams that it takes: the decoders on their own, a control
process without sockets, and an engine that strangers and a member with keys write to.

A target's ``take`` may raise nothing; a decoder's DecodeError is its way to say no, and is counted.
"""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from aioice import stun
from engines_in_memory import INDEX_A, INDEX_B, KEY_A, KEY_B, MTU, Pair, Side, ipv4, ipv6, keypair_a
from mutations import mutated

from dhtvpn.dataplane import messages as engine_messages
from dhtvpn.discovery import wire
from dhtvpn.discovery.contact import Contact
from dhtvpn.discovery.kademlia import KademliaDirectory
from dhtvpn.discovery.limits import MAX_PROVEN
from dhtvpn.discovery.storage import MAX_BYTES
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError, InvalidNetworkIdError
from dhtvpn.identity import Identity
from dhtvpn.membership.network_id import NetworkId, create
from dhtvpn.mesh import frames
from dhtvpn.nat.demux import DHT_PREFIX_BYTES, Kind, classify
from dhtvpn.nat.ice_checks import PortConnection
from dhtvpn.nat.stun_messages import binding_request, binding_response, mapped_endpoint, parse
from dhtvpn.nat.stun_router import StunRouter
from dhtvpn.nat.stun_service import StunService
from dhtvpn.packet import icmp, ip, virtio
from dhtvpn.packet.block import PLACE
from dhtvpn.records import envelope, epochs, record
from dhtvpn.records.topic import Topic
from dhtvpn.system.tun import MemoryTun
from dhtvpn.wireguard import messages as handshakes
from dhtvpn.wireguard.constants import LABEL_MAC1, TAG_SIZE, TYPE_BLOCK
from dhtvpn.wireguard.cookie import mac
from dhtvpn.wireguard.device import Device
from dhtvpn.wireguard.keypair import Keypair
from dhtvpn.wireguard.noise import blake2s
from dhtvpn.wireguard.transport import HEADER, NONCE, PeerTransport

UNIX_TIME = 1_738_800_000
SOURCES = [Endpoint(f"198.51.{n >> 8}.{n & 255}", 1024 + n) for n in range(6000)]
SOURCES += [Endpoint(f"2001:db8:{n:x}::1", 1024 + n) for n in range(3000)]
"""More than any table of sources holds."""

Take = Callable[[bytes, random.Random], None]
Seeds = Sequence[bytes] | Callable[[random.Random], bytes]


@dataclass
class Target:
    """``seeds`` are right datagrams, or make one. ``check`` asserts that nothing has grown past its cap."""

    name: str
    seeds: Seeds
    take: Take
    weight: int = 1
    repair: Callable[[bytes, random.Random], bytes] = lambda data, rng: data
    check: Callable[[], None] = lambda: None
    drops: Callable[[], dict[str, int]] = dict

    def next(self, rng: random.Random) -> bytes:
        seed = self.seeds(rng) if callable(self.seeds) else rng.choice(self.seeds)
        return self.repair(mutated(seed, rng), rng)


def decoder(name: str, decode: Callable[[bytes], object], *seeds: bytes) -> Target:
    """A function of bytes that may raise DecodeError and nothing else."""
    refused: Counter[str] = Counter()

    def take(data: bytes, rng: random.Random) -> None:
        try:
            decode(data)
        except DecodeError as error:
            refused[f"{name}: {error.reason}"] += 1

    return Target(name, seeds, take, drops=lambda: dict(refused))


def all_targets(rng: random.Random) -> list[Target]:
    """Every target, with a running event loop."""
    control = Control(rng)
    return [
        *_decoders(rng),
        Target("stun", control.stun_seeds, control.take, 3, _stun_length, control.check, control.drops),
        Target("dht", control.dht_seeds, control.take, 4),
        Target("handshakes", control.handshake_seed, control.take, 2, control.with_mac1),
        *(target for trains in (False, True) for target in _engine_targets(Stormed(trains), trains)),
    ]


def _engine_targets(engine: "Stormed", trains: bool) -> list[Target]:
    kind, a, b = "trains" if trains else "plain", engine.pair.a.drops, engine.pair.b.drops
    return [
        Target(f"data from strangers, {kind}", engine.strange_data, engine.from_stranger, drops=b),
        Target(f"a hostile member, {kind}", engine.plaintext, engine.from_member, 2, check=engine.check),
        Target(f"from this machine, {kind}", engine.packets, engine.from_host, drops=a),
    ]


def _decoders(rng: random.Random) -> list[Target]:
    identity = Identity.from_seed(rng.randbytes(32))
    network_id, _ = create(rng.randbytes)
    topic = Topic.derive(rng.randbytes(32), epochs.epoch_at(UNIX_TIME))
    entry = endpoint_record(identity, rng)
    sealed = envelope.seal(entry, topic, identity, 7, UNIX_TIME + 3600, rng.randbytes)
    hello = frames.Hello(rng.randbytes(16), 3, "laptop")
    requests, replies = dht_requests(rng, sealed), dht_replies(rng)
    packets = inner_packets(rng)

    def network_id_of(data: bytes) -> None:
        with suppress(InvalidNetworkIdError):
            NetworkId.decode(data.decode("utf-8", "replace"))

    def replied(data: bytes) -> None:
        for rpc in wire.Rpc:
            with suppress(DecodeError):
                wire.decode_reply(rpc, data, SOURCES[0])

    def mapped(data: bytes) -> None:
        mapped_endpoint(parse(data))

    return [
        decoder("envelope", lambda data: envelope.inspect(data, topic.dht_key, UNIX_TIME), sealed),
        decoder("sealed", lambda data: envelope.open_record(data, topic, UNIX_TIME), sealed),
        decoder("record", record.decode, record.encode(entry)),
        decoder(
            "frame", frames.decode, *map(frames.encode, (hello, frames.Ping(b"8" * 8), frames.Goodbye()))
        ),
        decoder("dht request", wire.decode_request, *(request[wire.HEADER_LENGTH :] for request in requests)),
        decoder("dht reply", replied, *(reply[wire.HEADER_LENGTH :] for reply in replies)),
        decoder("dht value", wire.decode_value, wire.encode_value(bytes(20), sealed)[wire.HEADER_LENGTH :]),
        decoder("contact", Contact.unpack, bytes(range(26)), bytes(range(38))),
        decoder("endpoint", Endpoint.unpack, SOURCES[0].pack(), SOURCES[-1].pack()),
        decoder("stun answer", mapped, binding_response(bytes(12), SOURCES[0], True)),
        decoder("packet", ip.parse, *packets),
        decoder("addresses", ip.addresses, *packets),
        decoder("icmp", icmp.unreachable, *packets),
        decoder("network-id", network_id_of, network_id.encode().encode()),
        decoder("engine message", engine_messages.decode, *engine_traffic()),
    ]


def endpoint_record(identity: Identity, rng: random.Random) -> record.EndpointRecord:
    candidates = tuple(
        record.Candidate(source, record.CandidateKind.HOST) for source in rng.sample(SOURCES, 6)
    )
    return record.EndpointRecord(identity.node_key, "laptop", rng.randbytes(16), candidates, 0, UNIX_TIME, 3)


def dht_requests(rng: random.Random, sealed: bytes) -> list[bytes]:
    made = []
    for rpc in wire.Rpc:
        payload = {wire.Rpc.STORE: sealed, wire.Rpc.PUSH: sealed}.get(rpc, rng.randbytes(28))
        target = b"" if rpc is wire.Rpc.PING else rng.randbytes(20)
        request = wire.Request(rpc, rng.randbytes(20), rng.randbytes(8), wire.Flags(3), target, payload)
        made.append(wire.encode_request(rng.randbytes(20), request))
    return made


def dht_replies(rng: random.Random) -> list[bytes]:
    contacts = tuple(Contact(rng.randbytes(20), source) for source in (*SOURCES[:8], *SOURCES[-8:]))
    return [
        wire.encode_reply(
            rng.randbytes(20), rpc, wire.Reply(rng.randbytes(20), rng.randbytes(8), contacts, 2, 3)
        )
        for rpc in wire.Rpc
    ]


def engine_traffic() -> list[bytes]:
    messages: list[engine_messages.Message] = [
        engine_messages.SetPeer(1, (ip_network("10.1.0.2/32"), ip_network("fd00::2/128")), SOURCES[0]),
        engine_messages.InstallKeypair(1, INDEX_A, INDEX_B, KEY_A, KEY_B, True, 0.0),
        engine_messages.Send(1, b"frame"),
        engine_messages.ControlFrame(1, b"frame", SOURCES[0]),
        engine_messages.NeedHandshake(1),
    ]
    return [engine_messages.encode(message) for message in messages]


def inner_packets(rng: random.Random) -> list[bytes]:
    """From the hostile member (10.1.0.1) to the other; TCP, UDP, ICMP, fragments, extension headers."""
    pairs = (
        (IPv4Address("10.1.0.1"), IPv4Address("10.1.0.2")),
        (IPv6Address("fd00::1"), IPv6Address("fd00::2")),
    )
    tcp = bytes.fromhex("138913890000000100000002501000400000000000")
    udp = bytes.fromhex("1389138900100000") + bytes(8)
    made = []
    for (own, other), build, key in zip(pairs, (ipv4, ipv6), ("protocol", "next_header"), strict=True):
        for protocol, body in (
            (6, tcp + rng.randbytes(600)),
            (17, udp),
            (1, b"\x08" + bytes(40)),
            (58, bytes(60)),
        ):
            made.append(build(own, other, body, **{key: protocol}))
        made.append(build(own, other, bytes([17, 0]) + bytes(6) + udp, **{key: 0}))
    made.append(ipv4(*pairs[0], udp, flags=0x2000))
    return made


@dataclass(frozen=True)
class _Own:
    own_ufrag: str = "left"
    own_password: str = "p" * 22
    peer_ufrag: str = "right"
    peer_password: str = "q" * 22
    controlling: bool = True


class _Port:
    """A port without a socket: what is sent is forgotten."""

    def __init__(self) -> None:
        self.drops = Drops()
        self.stun = StunRouter(self.drops)

    def send(self, data: bytes, endpoint: Endpoint) -> bool:
        return True

    answer = send_dht = send


class Control:
    """What a control process does with a datagram: STUN with an agent, DHT, and two WireGuard devices, of
    which the second makes right handshakes for the first."""

    def __init__(self, rng: random.Random) -> None:
        self._port = _Port()
        self._loop = asyncio.get_running_loop()
        StunService(self._port, clock=self._loop.time)  # type: ignore[arg-type]
        self._agent = PortConnection(self._port, _Own())  # type: ignore[arg-type]
        self._agent.add_base(Endpoint("192.0.2.9", 1))
        self._agent.begin()
        self._port.stun.add_agent("left", self._agent.handle_request)
        self._directory = KademliaDirectory(
            self._port.send_dht,
            drops=self._port.drops,
            monotonic=self._loop.time,
            unix_time=lambda: UNIX_TIME,
            random_bytes=rng.randbytes,
        )
        self._device, self._member = (
            Device(rng.randbytes(32), rng.randbytes, drops=self._port.drops) for _ in range(2)
        )
        self._device.add_peer(self._member.public_key, bytes(32)).set_endpoint(SOURCES[1])
        self._member.add_peer(self._device.public_key, bytes(32)).set_endpoint(SOURCES[0])
        self._mac1_key = blake2s(LABEL_MAC1, self._device.public_key)
        identity, topic = Identity.from_seed(rng.randbytes(32)), Topic.derive(bytes(32), UNIX_TIME // 3600)
        entry = endpoint_record(identity, rng)
        sealed = envelope.seal(entry, topic, identity, 7, UNIX_TIME + 3600, rng.randbytes)
        made = [*dht_requests(rng, sealed), *dht_replies(rng), wire.encode_value(bytes(20), sealed)]
        self.dht_seeds = [DHT_PREFIX_BYTES + data for data in made]
        self.stun_seeds = [
            binding_request(rng.randbytes(12)),
            binding_response(rng.randbytes(12), SOURCES[0], True),
            *(_check(password, rng) for password in (b"p" * 22, b"wrong")),
        ]
        self._handshakes: list[bytes] = []

    def handshake_seed(self, rng: random.Random) -> bytes:
        """An initiation or a response that the device would take, or a cookie reply to one of its own."""
        if not self._handshakes or rng.getrandbits(7) == 0:
            self._handshakes = self._fresh_handshakes(rng)
        return rng.choice(self._handshakes)

    def _fresh_handshakes(self, rng: random.Random) -> list[bytes]:
        now = self._loop.time()
        self._member.peers[0].initiate(now, UNIX_TIME + now, force=True)
        self._device.peers[0].initiate(now, UNIX_TIME + now, force=True)
        initiation = self._member.datagrams_to_send()[-1][0]
        asked = self._device.datagrams_to_send()[-1][0]
        self._member.handle_datagram(asked, SOURCES[0], now, UNIX_TIME + now)
        answers = [data for data, _ in self._member.datagrams_to_send()]
        self._member.events()
        cookie = handshakes.CookieReply(handshakes.sender_index(asked), rng.randbytes(24), rng.randbytes(32))
        return [initiation, *answers, cookie.pack()]

    def with_mac1(self, data: bytes, rng: random.Random) -> bytes:
        """Half of them get a right mac1 again, so that the handshake itself sees the damage."""
        if len(data) in (148, 92) and rng.getrandbits(1):
            return data[:-32] + mac(self._mac1_key, data[:-32]) + data[-16:]
        return data

    def take(self, data: bytes, rng: random.Random) -> None:
        source, kind = rng.choice(SOURCES if rng.getrandbits(1) else SOURCES[:2]), classify(data)
        if kind is Kind.DHT:
            self._directory.handle_datagram(data[1:], source)
        elif kind is Kind.STUN:
            self._port.stun.handle_datagram(data, source)
        elif kind is Kind.TUNNEL_HANDSHAKE:
            now = self._loop.time()
            self._device.handle_datagram(data, source, now, UNIX_TIME + now)
            self._device.datagrams_to_send()
            self._device.events()

    def drops(self) -> dict[str, int]:
        return self._port.drops.as_dict()

    def check(self) -> None:
        directory = self._directory
        assert len(directory._limit._proven) <= MAX_PROVEN
        assert directory.storage.size_bytes <= MAX_BYTES
        assert len(directory._requests) <= 1024
        assert len(directory._meetings) <= 512
        assert len(self._device._rates) <= 4096
        assert len(self._device._around.indices) <= 4
        assert len(self._agent._check_list) <= 100


def _check(password: bytes, rng: random.Random) -> bytes:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, rng.randbytes(12))
    message.attributes.update({"USERNAME": "left:right", "PRIORITY": 1, "ICE-CONTROLLED": 2})
    message.add_message_integrity(password)
    message.add_fingerprint()
    return bytes(message)


def _stun_length(data: bytes, rng: random.Random) -> bytes:
    """Half of them get a right length again, so that the attributes are walked."""
    if len(data) >= 20 and rng.getrandbits(1):
        data += bytes(-len(data) % 4)
        return data[:2] + (len(data) - 20).to_bytes(2, "big") + data[4:]
    return data


class Stormed:
    """Two engines in memory. ``a`` turns hostile: it has keys, and seals whatever it likes.

    ``trains``: devices with virtio headers, and peers that take trains.
    """

    def __init__(self, trains: bool) -> None:
        rng, self.now = random.Random(1), 0.0
        sides = [
            Side(
                IPv4Address(f"10.1.0.{n}"),
                IPv6Address(f"fd00::{n}"),
                Endpoint(f"192.0.2.{n}", 4000 + n),
                MemoryTun(vnet_header=trains),
            )
            for n in (1, 2)
        ]
        self.pair = Pair(*sides)
        self.pair.a.know(self.pair.b)
        self.pair.b.know(self.pair.a)
        self.pair.a.engine.handle_command(keypair_a(), 0.0)
        for side in sides:
            side.socket.sendmsg = lambda parts, options, flags, address: sum(map(len, parts))
            features = engine_messages.SetFeatures(
                1, trains=trains, udp_trains=trains, aes=False, blocks=trains
            )
            side.engine.handle_command(features, 0.0)
        self._header = virtio.NONE if trains else b""
        self.packets = inner_packets(rng)
        self.strange_data = [
            bytes([kind, 0, 0, 0]) + INDEX_B.to_bytes(4, "little") + rng.randbytes(120)
            for kind in (4, 5, 6, 7)
        ]
        hello = frames.encode(frames.Hello(rng.randbytes(16), 3, "laptop"))
        marked = [bytes([packet[0] ^ mark]) + packet[1:] for packet in self.packets for mark in (0x80, 0x90)]
        self._plaintexts = [*self.packets, *marked, *marked, hello, frames.encode(frames.Ping(b"8" * 8))]
        self._sealing = PeerTransport(MTU)
        self._rekey()

    def _rekey(self) -> None:
        """New keys for both ends, from the old counter's point of view: nothing is a replay."""
        salt = hashlib.sha256(repr(self.now).encode()).digest()
        sending, receiving = (hashlib.sha256(salt + key).digest() for key in (KEY_A, KEY_B))
        self._sealing.install(Keypair(INDEX_A, INDEX_B, sending, receiving, True, self.now))
        install = engine_messages.InstallKeypair(1, INDEX_B, INDEX_A, receiving, sending, False, self.now)
        self.pair.b.engine.handle_command(install, self.now)

    def plaintext(self, rng: random.Random) -> bytes:
        return rng.choice(self._plaintexts)

    def from_stranger(self, data: bytes, rng: random.Random) -> None:
        self.pair.b.receive(data, source=("203.0.113.9", rng.randrange(65536)), now=self.now)
        self._forget()

    def from_member(self, data: bytes, rng: random.Random) -> None:
        """Sealed after the damage, so that it is the plaintext which is hostile; a run of them at times."""
        self.now += 0.001
        if not self._sealing.ready(self.now):
            self._rekey()
        run = [self._sealed(data)]
        while rng.getrandbits(2) == 0 and len(run) < 8:
            run.append(self._sealed(data))
        if self._header and rng.getrandbits(2) == 0:
            run = self._sealed_block(data, rng)
        if rng.getrandbits(3) == 0:
            rng.shuffle(run)
        source = ("192.0.2.1", rng.choice((4001, 4001, 4002, 0)))
        self.pair.b.socket.arrived.append((b"".join(run), len(run[0]), source))
        self.pair.b.receive(now=self.now)
        self.pair.b.engine.handle_timeout(self.now)
        self._forget()

    def _sealed(self, data: bytes) -> bytes:
        sealed = self._sealing.seal(data[:MTU], self.now)
        assert sealed is not None
        return sealed

    def _sealed_block(self, data: bytes, rng: random.Random) -> list[bytes]:
        """``data`` as the contents of a block, in some chunks."""
        session = self._sealing.sending(self.now)
        counter = session.reserve(1) if session is not None else None
        assert session is not None
        assert counter is not None
        header = HEADER.pack(TYPE_BLOCK, INDEX_B, counter)
        plaintext = rng.choice((b"", b"\0\0", b"\7\0", b"\xff\xff")) + data[: 8 * MTU]
        sealed = bytearray(len(plaintext) + TAG_SIZE)
        session.seal_into[TYPE_BLOCK](NONCE.pack(counter), plaintext, header, sealed)
        size = rng.randint(len(sealed) // 8 + 1, len(sealed))
        chunks = [bytes(sealed[at : at + size]) for at in range(0, len(sealed), size)]
        return [header + PLACE.pack(place, len(chunks)) + chunk for place, chunk in enumerate(chunks)]

    def from_host(self, data: bytes, rng: random.Random) -> None:
        if data:
            self.pair.a.send(self._header + data, now=self.now)
        self._forget()

    def _forget(self) -> None:
        for side in (self.pair.a, self.pair.b):
            side.take_sent()
            side.events.clear()
            side.tun.received_by_host.clear()

    def check(self) -> None:
        for side in (self.pair.a, self.pair.b):
            peers = side.engine._peers
            assert len(peers.by_number) == 1
            assert len(peers.by_index) <= 3
