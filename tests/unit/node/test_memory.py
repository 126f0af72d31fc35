"""What is remembered: every member whose record was seen, whether or not it was ever connected."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dhtvpn.discovery.remembered import RememberedContacts, RememberedPeers
from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.membership.addresses import Claim
from dhtvpn.node.finder import Finder
from dhtvpn.node.memory import Memory
from dhtvpn.records.envelope import OpenedRecord, seal
from dhtvpn.records.epochs import epoch_at
from dhtvpn.records.record import Candidate, CandidateKind, EndpointRecord
from dhtvpn.records.roster import Roster
from dhtvpn.records.topic import Topic

SECRET = bytes([7]) * 32
CONTACT = Endpoint("198.18.9.9", 4690)


def envelope_of(identity: Identity, epoch: int, expires: int) -> bytes:
    record = EndpointRecord(
        node_key=identity.node_key,
        name="desk",
        session_nonce=bytes(16),
        candidates=(Candidate(Endpoint("198.18.1.1", 4690), CandidateKind.HOST),),
        ipv4_attempt=0,
        since=1,
        features=0,
        leaving=False,
    )
    return seal(record, Topic.derive(SECRET, epoch), identity, 5, expires, os.urandom)


class Bench:
    """Members made of nothing, and a finder that opens what is recalled."""

    def __init__(self, directory: Path) -> None:
        self.found: list[OpenedRecord] = []
        self.seen: list[bytes] = []
        self.remembered: list[tuple[Any, ...]] = []
        self.all: list[Any] = []
        self.finder = Finder(
            directory=None,  # type: ignore[arg-type]
            topic_at=lambda epoch: Topic.derive(SECRET, epoch),
            roster=Roster(),
            own_node_key=bytes(32),
            member_found=self.found.append,
            member_expired=lambda _: None,
            drops=Drops(),
            record_seen=lambda opened: self.seen.append(opened.envelope),
        )
        members = SimpleNamespace(
            all=lambda: self.all, remember=lambda *arguments: self.remembered.append(arguments)
        )
        self.memory = Memory(
            RememberedPeers(directory / "peers.json"),
            RememberedContacts(directory / "contacts.json"),
            members=members,  # type: ignore[arg-type]
            tunnels=SimpleNamespace(greatest_timestamp=lambda peer: None),  # type: ignore[arg-type]
            known_contacts=lambda: [CONTACT],
            record_recalled=self.finder.recall,
        )

    def add(self, identity: Identity, envelope: bytes | None, *, path: str | None) -> None:
        connector = SimpleNamespace(known_endpoints=[Endpoint("198.18.1.1", 4690)] if path else [])
        peer = SimpleNamespace(name="desk", path=path)
        claim = Claim(identity.node_key, 0, 1)
        self.all.append(
            SimpleNamespace(
                peer=peer,
                connector=connector,
                claim=claim,
                sequence=5,
                envelope=envelope,
                record_seen_at=time.time() if envelope is not None else 0.0,
            )
        )


def test_a_record_that_is_still_good_is_used_at_the_next_start(tmp_path: Path) -> None:
    identity, now = Identity.from_seed(bytes([1]) * 32), int(time.time())
    envelope = envelope_of(identity, epoch_at(now), now + 1800)
    before = Bench(tmp_path)
    before.add(identity, envelope, path=None)
    before.memory.save()
    after = Bench(tmp_path)
    assert CONTACT in after.memory.recall()
    assert [arguments[0].node_key for arguments in after.remembered] == [identity.node_key]
    (opened,) = after.found
    assert opened.record.node_key == identity.node_key and after.seen == [envelope]


def test_a_record_of_long_ago_or_damaged_is_no_use_and_no_harm(tmp_path: Path) -> None:
    now = int(time.time())
    before = Bench(tmp_path)
    for number, envelope in enumerate(
        [
            envelope_of(Identity.from_seed(bytes([1]) * 32), epoch_at(now) - 3, now + 1800),
            envelope_of(Identity.from_seed(bytes([2]) * 32), epoch_at(now), now - 1),
            b"\x00" * 40,
            None,
        ]
    ):
        before.add(Identity.from_seed(bytes([number + 1]) * 32), envelope, path="direct")
    before.memory.save()
    after = Bench(tmp_path)
    after.memory.recall()
    assert len(after.remembered) == 4 and after.found == []


def test_a_link_local_endpoint_is_not_written_down(tmp_path: Path) -> None:
    before = Bench(tmp_path)
    before.add(Identity.from_seed(bytes([1]) * 32), None, path="direct")
    before.all[0].connector.known_endpoints = [Endpoint("fe80:3::1", 1), Endpoint("198.18.1.1", 1)]
    before.memory.save()
    after = Bench(tmp_path)
    after.memory.recall()
    assert [arguments[2] for arguments in after.remembered] == [[Endpoint("198.18.1.1", 1)]]
