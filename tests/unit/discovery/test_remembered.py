"""What is remembered on disk: round trips, caps, damage."""

import json
import stat

import pytest

from dhtvpn.discovery.remembered import (
    FORGET_AFTER_S,
    MAX_CONTACTS,
    MAX_PEERS,
    RememberedContacts,
    RememberedPeer,
    RememberedPeers,
)
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError

FOUR, SIX = Endpoint("198.18.0.1", 4690), Endpoint("2001:db8::1", 4691)
PEER = RememberedPeer(
    b"K" * 32,
    "laptop",
    (FOUR, SIX),
    last_seen=1_800_000_000.5,
    tunnel_timestamp=b"T" * 12,
    sequence=2**64 - 1,
    ipv4_attempt=2,
    ipv4_since=1_700_000_000,
    envelope=b"envelope",
)


def test_contacts_round_trip(tmp_path):
    contacts = RememberedContacts(tmp_path / "contacts.json")
    assert contacts.load() == []
    contacts.save([SIX, FOUR])
    assert contacts.load() == [FOUR, SIX]
    assert stat.S_IMODE((tmp_path / "contacts.json").stat().st_mode) == 0o600


def test_contacts_are_capped_and_normalised(tmp_path):
    path = tmp_path / "contacts.json"
    contacts = RememberedContacts(path)
    contacts.save(Endpoint("198.18.0.1", port + 1) for port in range(MAX_CONTACTS + 50))
    assert len(contacts.load()) == MAX_CONTACTS
    entries = [["2001:DB8:0::1", 1, 0, 0], ["::ffff:198.18.0.1", 2, 0, 0]]
    path.write_text(json.dumps({"version": 1, "contacts": entries}))
    assert contacts.load() == [Endpoint("2001:db8::1", 1), Endpoint("198.18.0.1", 2)]


def test_peers_round_trip_the_latest_first(tmp_path):
    peers = RememberedPeers(tmp_path / "peers.json")
    older = RememberedPeer(b"L" * 32, "desk", last_seen=5.0)
    peers.save([older, PEER])
    assert list(peers.load().values()) == [PEER, older]
    assert peers.load()[PEER.node_key] == PEER


def test_peers_are_capped_by_when_they_were_seen(tmp_path):
    peers = RememberedPeers(tmp_path / "peers.json")
    peers.save(RememberedPeer(n.to_bytes(32, "big"), "p", last_seen=float(n)) for n in range(MAX_PEERS + 9))
    loaded = peers.load()
    assert len(loaded) == MAX_PEERS
    assert min(peer.last_seen for peer in loaded.values()) == 9.0


def spoilt(**changes):
    good = {
        "node_key": "4b" * 32,
        "name": "laptop",
        "endpoints": [["198.18.0.1", 1]],
        "last_seen": 1,
        "tunnel_timestamp": None,
        "sequence": 1,
        "ipv4_attempt": 0,
        "ipv4_since": 0,
        "envelope": None,
    }
    return json.dumps({"version": 1, "peers": [good | changes]}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00rubbish",
        b"[]",
        b"{}",
        b'{"version": 2, "peers": []}',
        b'{"version": 1, "peers": [7]}',
        b"[" * 100_000,
        spoilt(node_key="4b"),
        spoilt(node_key=None),
        spoilt(name="x" * 64),
        spoilt(endpoints=[["example.org", 1]]),
        spoilt(endpoints=[["198.18.0.1", 0]]),
        spoilt(endpoints=7),
        spoilt(last_seen=float("nan")),
        spoilt(last_seen=True),
        spoilt(tunnel_timestamp="00"),
        spoilt(sequence=-1),
        spoilt(sequence="1"),
        spoilt(ipv4_attempt=None),
        spoilt(ipv4_since="x"),
        spoilt(envelope="zz"),
        spoilt(envelope="00" * 901),
    ],
)
def test_a_damaged_file_is_kept_and_the_node_starts_without(tmp_path, caplog, content):
    path = tmp_path / "peers.json"
    path.write_bytes(content)
    assert RememberedPeers(path).load() == {}
    assert (tmp_path / "peers.json.damaged").read_bytes() == content
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    RememberedPeers(path).save([PEER])
    assert RememberedPeers(path).load() == {PEER.node_key: PEER}


def test_an_unreadable_file_is_a_warning_and_an_unwritable_place_is_said(tmp_path, caplog):
    path = tmp_path / "contacts.json"
    path.mkdir()
    assert RememberedContacts(path).load() == []
    assert len(caplog.records) == 1
    with pytest.raises(SystemRefusedError):
        RememberedContacts(tmp_path / "absent" / "contacts.json").save([FOUR])


def at(number, family=4):
    return Endpoint(f"198.18.{number}.1" if family == 4 else f"2001:db8:{number:x}::1", 4690)


def test_contacts_that_have_been_there_longest_come_first(tmp_path):
    now = [1e9]
    path = tmp_path / "contacts.json"
    contacts = RememberedContacts(path, lambda: now[0])
    contacts.save([at(1), at(2)])
    now[0] += 86_400
    contacts.save([at(3), at(2)])
    now[0] += 86_400
    after_a_restart = RememberedContacts(path, lambda: now[0])
    after_a_restart.save([at(4), at(3), at(2)])
    assert contacts.load() == [at(2), at(3), at(4), at(1)], "who is not good any more comes last"


def test_both_families_are_remembered_however_many_there_are_of_one(tmp_path):
    contacts = RememberedContacts(tmp_path / "contacts.json", lambda: 1e9)
    contacts.save([*(at(n)._replace(port=n + 1) for n in range(MAX_CONTACTS)), at(1, 6), at(2, 6)])
    loaded = contacts.load()
    assert len(loaded) == MAX_CONTACTS
    assert sum(endpoint.is_ipv6 for endpoint in loaded[:4]) == 2


def test_contacts_of_long_ago_are_forgotten(tmp_path):
    now = [1e9]
    contacts = RememberedContacts(tmp_path / "contacts.json", lambda: now[0])
    contacts.save([at(1)])
    now[0] += FORGET_AFTER_S - 1
    contacts.save([at(2)])
    assert contacts.load() == [at(2), at(1)]
    now[0] += 1
    contacts.save([at(2)])
    assert contacts.load() == [at(2)]


def test_a_damaged_contact_file_is_kept_aside_and_replaced(tmp_path, caplog):
    path = tmp_path / "contacts.json"
    path.write_text('{"version": 1, "contacts": [["198.18.1.1", 4690, "yesterday", 0]]}')
    contacts = RememberedContacts(path, lambda: 1e9)
    contacts.save([at(1)])
    assert contacts.load() == [at(1)]
    assert "is damaged" in caplog.text
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_names_an_interface_is_damaged(tmp_path, caplog):
    contacts = RememberedContacts(tmp_path / "contacts.json")
    contacts.save([Endpoint("fe80:3::1", 4690), FOUR])
    assert RememberedContacts(tmp_path / "contacts.json").load() == []
    assert "is damaged" in caplog.text
