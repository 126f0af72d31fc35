"""The messages of docs/protocol/engine.md: bytes, round trips, refusals."""

from ipaddress import ip_address, ip_network

import cbor2
import pytest

from dhtvpn.dataplane import messages as m
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError

V4, V6 = Endpoint("192.0.2.1", 4690), Endpoint("2001:db8::1", 65535)
KEYPAIR = m.InstallKeypair(3, 1, 0xFFFFFFFF, b"s" * 32, b"r" * 32, True, 12.5)

COMMANDS: list[m.Command] = [
    m.Configure((ip_address("10.0.0.1"), ip_address("fd00::1")), 1420),
    m.SetPeer(1, (ip_network("10.0.0.0/8"), ip_network("fd00::/64")), V6),
    m.SetPeer(1, (), None),
    m.RemovePeer(1),
    KEYPAIR,
    m.EraseKeypairs(1),
    m.SetEndpoint(1, V4),
    m.SetSource(1, ip_address("192.0.2.9")),
    m.SetSource(1, ip_address("2001:db8::9")),
    m.Send(1, b"\x01frame"),
    m.Send(1, b""),
    m.SetPathMtu(1, 8920),
    m.SendProbe(1, bytes(8920)),
    m.Resolve((ip_network("10.0.0.0/8"), ip_network("fd00::/64"))),
    m.NoMember(ip_address("10.0.0.1")),
    m.Datagram(b"\x04\0\0\0", V4),
]
EVENTS: list[m.Event | m.Ready] = [
    m.Ready(),
    m.Ready(m.OFFLOADS),
    m.ControlFrame(1, b"\x02", V4),
    m.Activity(1, True, False, 1 << 40, 0, V6, False, True),
    m.Activity(1, True, False, 0, 0, None),
    m.KeypairConfirmed(1, 7),
    m.NeedHandshake(1),
    m.EndpointRoamed(1, V4),
    m.ProbeRefused(1, 8920),
    m.WhoHolds(ip_address("fd00::1")),
    m.DropCounts({"dataplane.no_peer": 3}),
]


@pytest.mark.parametrize("message", COMMANDS, ids=lambda message: type(message).__name__)
def test_commands_round_trip(message: m.Command) -> None:
    assert m.decode_command(m.encode(message)) == message
    with pytest.raises(DecodeError, match="kind"):
        m.decode_event(m.encode(message))


@pytest.mark.parametrize("message", EVENTS, ids=lambda message: type(message).__name__)
def test_events_round_trip(message: m.Event | m.Ready) -> None:
    assert m.decode_event(m.encode(message)) == message
    with pytest.raises(DecodeError, match="kind"):
        m.decode_command(m.encode(message))


def test_bytes_of_set_endpoint() -> None:
    expected = "a3 64 6b696e64 6c 7365745f656e64706f696e74 64 70656572 01 68 656e64706f696e74 46 c00002011252"
    assert m.encode(m.SetEndpoint(1, V4)).hex() == expected.replace(" ", "")


def test_bytes_of_set_peer() -> None:
    message = m.SetPeer(2, (ip_network("10.0.0.0/8"),), None)
    assert cbor2.loads(m.encode(message)) == {
        "kind": "set_peer",
        "peer": 2,
        "allowed_ips": [[bytes([10, 0, 0, 0]), 8]],
        "endpoint": None,
    }


def test_keys_are_not_shown() -> None:
    assert "ssss" not in repr(KEYPAIR) and "rrrr" not in repr(KEYPAIR)


def altered(**changes: object) -> bytes:
    return cbor2.dumps(cbor2.loads(m.encode(KEYPAIR)) | changes)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "format"),
        (b"\xff", "format"),
        (cbor2.dumps([1]), "format"),
        (cbor2.dumps({"kind": "nothing"}), "kind"),
        (cbor2.dumps({"kind": ["ready"]}), "kind"),
        (cbor2.dumps({}), "kind"),
        (cbor2.dumps({"kind": "remove_peer"}), "field"),
        (cbor2.dumps({"kind": "remove_peer", "peer": 1, "more": 1}), "field"),
        (cbor2.dumps({"kind": "remove_peer", 1: 1}), "field"),
        (cbor2.dumps({"kind": "remove_peer", "peer": -1}), "field"),
        (cbor2.dumps({"kind": "remove_peer", "peer": True}), "field"),
        (cbor2.dumps({"kind": "set_endpoint", "peer": 1, "endpoint": None}), "field"),
        (cbor2.dumps({"kind": "set_endpoint", "peer": 1, "endpoint": bytes(6)}), "field"),
        (cbor2.dumps({"kind": "set_endpoint", "peer": 1, "endpoint": "192.0.2.1:1"}), "field"),
        (cbor2.dumps({"kind": "set_peer", "peer": 1, "endpoint": None, "allowed_ips": 5}), "field"),
        (cbor2.dumps({"kind": "set_peer", "peer": 1, "endpoint": None, "allowed_ips": [b"1234"]}), "field"),
        (
            cbor2.dumps({"kind": "set_peer", "peer": 1, "endpoint": None, "allowed_ips": [[b"1234", 8]]}),
            "field",
        ),
        (
            cbor2.dumps({"kind": "set_peer", "peer": 1, "endpoint": None, "allowed_ips": [["10.0.0.0", 8]]}),
            "field",
        ),
        (cbor2.dumps({"kind": "configure", "mtu": 67, "local_addresses": []}), "field"),
        (cbor2.dumps({"kind": "configure", "mtu": 1420, "local_addresses": ["10.0.0.1"]}), "field"),
        (cbor2.dumps({"kind": "drop_counts", "counts": {"a": "b"}}), "field"),
        (cbor2.dumps({"kind": "drop_counts", "counts": []}), "field"),
        (cbor2.dumps({"kind": "ready", "offloads": ["magic"]}), "field"),
        (cbor2.dumps({"kind": "ready", "offloads": [b"aes"]}), "field"),
        (cbor2.dumps({"kind": "ready", "offloads": "aes"}), "field"),
        (cbor2.dumps({"kind": "send", "peer": 1, "plaintext": bytes(m.MAX_FRAME + 1)}), "field"),
        (altered(send_key=b"short"), "field"),
        (altered(local_index=1 << 32), "field"),
        (altered(created_at=1), "field"),
        (altered(initiator=1), "field"),
        (bytes(m.MAX_MESSAGE + 1), "size"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        m.decode(data)
    assert caught.value.reason == reason


def test_a_message_past_the_cap_is_not_made() -> None:
    with pytest.raises(ValueError, match="bytes to or from the engine"):
        m.encode(m.Datagram(bytes(m.MAX_MESSAGE), V4))


def test_the_zone_of_a_neighbour_gets_across() -> None:
    event = m.EndpointRoamed(1, Endpoint("fe80:3::1", 7))
    assert m.decode_event(m.encode(event)) == event
