"""Records that lie, offered to a running node's DHT by somebody who knows the protocol: each is dropped
under its own reason, which `status --json` shows, and none of them becomes a peer."""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from joined import eventually, join_all, log_text, status

from dhtvpn.discovery.wire import Reply, Request, Rpc, Status, decode_reply, encode_request, split
from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.lab import topologies
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Topology
from dhtvpn.membership.network_id import NetworkId
from dhtvpn.nat.demux import DHT_PREFIX_BYTES
from dhtvpn.records.envelope import MAX_LIFETIME_S, seal
from dhtvpn.records.epochs import epoch_at
from dhtvpn.records.record import Candidate, CandidateKind, EndpointRecord
from dhtvpn.records.topic import Topic

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]
NODE_ID = bytes(range(20))


class Stranger:
    """Speaks the DHT's datagrams to one node from a socket of its own."""

    def __init__(self, out: socket.socket, target: tuple[str, int]) -> None:
        self._out, self._target = out, target
        out.settimeout(3.0)
        self._token = b""
        self._token = self.ask(Rpc.PING).token

    def ask(self, rpc: Rpc, target: bytes = b"", payload: bytes = b"") -> Reply:
        message_id = self.tell(rpc, target, payload)
        while True:
            data = self._out.recv(2000)[len(DHT_PREFIX_BYTES) :]
            _, answered, body = split(data)
            if answered == message_id:
                return decode_reply(rpc, body, Endpoint(*self._target))

    def tell(self, rpc: Rpc, target: bytes = b"", payload: bytes = b"") -> bytes:
        """Send a request; returns its message id."""
        message_id = os.urandom(20)
        request = Request(rpc, NODE_ID, self._token, target=target, payload=payload)
        self._out.sendto(DHT_PREFIX_BYTES + encode_request(message_id, request), self._target)
        return message_id

    def store(self, topic: Topic, envelope: bytes) -> Status:
        return self.ask(Rpc.STORE, topic.dht_key, envelope).status


def record_of(identity: Identity) -> EndpointRecord:
    candidate = Candidate(Endpoint("198.18.9.9", 9), CandidateKind.HOST)
    return EndpointRecord(
        node_key=identity.node_key,
        name="liar",
        session_nonce=bytes(16),
        candidates=(candidate,),
        ipv4_attempt=0,
        since=1,
        features=0,
    )


def test_lying_records_are_dropped_and_counted(lab: Lab) -> None:
    network = lab(topologies.PUBLIC)
    network_id = NetworkId.decode(join_all(network))
    server, desk = network.node("server"), network.node("desk")
    now = int(time.time())
    topic = Topic.derive(network_id.secret, epoch_at(now))
    foreign = Topic.derive(network_id.secret, epoch_at(now) + 1000)
    liar = Identity.from_seed(bytes([1]) * 32)

    def sealed(sequence: int = 1, expires: int = now + 600, under: Topic = topic) -> bytes:
        return seal(record_of(liar), under, liar, sequence, expires, os.urandom)

    altered = bytearray(sealed())
    altered[-1] ^= 1
    cases = {
        "record.signature": bytes(altered),
        "record.expired": sealed(expires=now - 10),
        "record.horizon": sealed(expires=now + MAX_LIFETIME_S + 600),
        "record.topic": sealed(under=foreign),
        "record.format": os.urandom(300),
    }
    known = {peer["name"] for peer in status(server)["peers"]}
    with desk.socket() as out:
        stranger = Stranger(out, (str(server.ipv4), status(server)["node"]["udp_port"]))
        for reason, envelope in cases.items():
            before = status(server)["drops"].get(reason, 0)
            assert stranger.store(topic, envelope) is Status.REFUSED, reason
            assert status(server)["drops"][reason] == before + 1, reason

        # Too long to be an envelope, and too long to be a datagram of the DHT, which the kernel sees: not
        # even answered.
        for reason, size in (("dht.malformed_request", 950), ("port.kernel", 1300)):
            assert reason not in status(server)["drops"]
            stranger.tell(Rpc.STORE, topic.dht_key, sealed().ljust(size, b"\0"))
            eventually(lambda reason=reason: status(server)["drops"].get(reason), reason)

        # A member that signs with the topic's key, but in another member's name: storing nodes cannot
        # tell, members can.
        other = Identity.from_seed(bytes([2]) * 32)
        forged = replace(record_of(other), name="forged")
        envelope = seal(forged, topic, _signing_as(other, liar), 1, now + 600, os.urandom)
        assert stranger.store(topic, envelope) is Status.OK
        eventually(lambda: status(server)["drops"].get("record.member_signature"), "the reader checks too")

        assert stranger.store(topic, sealed(sequence=5)) is Status.OK
        assert stranger.store(topic, sealed(sequence=4)) is Status.STALE
        assert status(server)["drops"]["dht.stale_sequence"] == 1
    eventually(lambda: "liar" in {peer["name"] for peer in status(server)["peers"]}, "the honest one")
    assert {peer["name"] for peer in status(server)["peers"]} == known | {"liar"}
    assert "Traceback" not in log_text(server)


def _signing_as(claimed: Identity, signer: Identity) -> Identity:
    """An identity that names ``claimed`` and signs with the key of ``signer``."""
    forger = Identity.from_seed(bytes([3]) * 32)
    forger.node_key = claimed.node_key
    forger.sign = signer.sign  # type: ignore[method-assign]
    return forger
