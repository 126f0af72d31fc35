"""Sequence numbers over restarts: readers and writers go on where they were, whatever became of the clock."""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from virtual_time import run

from dhtvpn.discovery.memory import MemoryDirectory
from dhtvpn.drops import Drops
from dhtvpn.identity import Identity
from dhtvpn.node.announcer import Announcer
from dhtvpn.node.finder import Finder
from dhtvpn.node.floors import RESERVE, Floors
from dhtvpn.records.envelope import OpenedRecord, open_record, seal
from dhtvpn.records.epochs import expiry_of
from dhtvpn.records.record import EndpointRecord
from dhtvpn.records.roster import MAX_REMEMBERED, Change, Floor, Roster
from dhtvpn.records.topic import Topic

NOW = 500_000 * 3600.0 + 1800
SECRET = bytes([9]) * 32
WRITER = Identity.from_seed(bytes([1]) * 32)
RECORD = EndpointRecord(WRITER.node_key, "writer", bytes(16), (), 0, 1, 0)


def opened(sequence: int, record: EndpointRecord = RECORD) -> OpenedRecord:
    return OpenedRecord(record, sequence, int(NOW) + 3000)


def test_a_reader_takes_nothing_older_after_a_restart(tmp_path: Path) -> None:
    before = Roster()
    assert before.offer(opened(7), NOW) is Change.NEW
    assert before.offer(opened(9, replace(RECORD, leaving=True)), NOW) is Change.UPDATED
    Floors(tmp_path / "f").save(5, before.floors())
    own, floors = Floors(tmp_path / "f").load()
    assert own == 5 + RESERVE
    after = Roster(floors)
    assert after.offer(opened(8), NOW) is Change.STALE, "it has left, and its older record stays away"
    assert after.offer(opened(10), NOW) is Change.NEW
    after.restore({WRITER.node_key: Floor(3, NOW)})
    assert after.floors()[WRITER.node_key].sequence == 10


def test_floors_are_bounded() -> None:
    many = {number.to_bytes(32, "big"): Floor(1, NOW) for number in range(MAX_REMEMBERED + 10)}
    assert len(Roster(many).floors()) == MAX_REMEMBERED


def test_a_damaged_file_is_kept_beside_and_does_not_stop_a_node(tmp_path: Path) -> None:
    path = tmp_path / "sequences.json"
    for content in (
        b"{",
        b"{}",
        b'{"version": 1, "own": 1, "members": []}',
        b'{"version": 1, "own": -1, "members": {}}',
        b'{"version": 1, "own": true, "members": {}}',
        b'{"version": 1, "members": {}}',
        json.dumps({"version": 1, "own": 1, "members": {"00": [1, 2]}}).encode(),
        json.dumps({"version": 1, "own": 1, "members": {"00" * 32: [1, "2"]}}).encode(),
        json.dumps({"version": 1, "own": 1, "members": {"00" * 32: [1 << 63, 2]}}).encode(),
    ):
        path.write_bytes(content)
        assert Floors(path).load() == (0, {})
    assert len(list(tmp_path.iterdir())) > 1


def writer(directory: MemoryDirectory, unix_time: Any) -> Announcer:
    return Announcer(
        directory=directory,
        identity=WRITER,
        topic_at=lambda epoch: Topic.derive(SECRET, epoch),
        record=lambda: RECORD,
        random_bytes=os.urandom,
        published=lambda _: None,
        unix_time=unix_time,
    )


def test_a_writer_goes_on_above_what_it_wrote_when_its_clock_is_set_back() -> None:
    async def scenario() -> None:
        announcer = writer(MemoryDirectory(unix_time=lambda: NOW), lambda: NOW)
        announcer.sequence = int(NOW * 1000) + 5_000_000
        task = asyncio.create_task(announcer.run())
        await asyncio.sleep(1)
        assert announcer.sequence == int(NOW * 1000) + 5_000_001
        task.cancel()

    run(scenario())


def test_a_writer_without_disk_and_clock_learns_from_the_directory_how_far_it_was() -> None:
    """The storing nodes refuse what is below; the writer finds its own record and goes above it, once."""

    async def scenario() -> None:
        directory = MemoryDirectory(unix_time=lambda: NOW)
        epoch = int(NOW // 3600)
        topic = Topic.derive(SECRET, epoch)
        ahead = int(NOW * 1000) + 777_000
        earlier = replace(RECORD, session_nonce=b"another run 1234")
        await directory.publish(
            topic.dht_key, seal(earlier, topic, WRITER, ahead, expiry_of(epoch), os.urandom)
        )
        announcer = writer(directory, lambda: NOW)
        finder = Finder(
            directory=directory,
            topic_at=lambda epoch: Topic.derive(SECRET, epoch),
            roster=Roster(),
            own_node_key=WRITER.node_key,
            member_found=lambda _: None,
            member_expired=lambda _: None,
            drops=Drops(),
            own_record_seen=announcer.seen_own,
            unix_time=lambda: NOW,
        )
        tasks = [asyncio.create_task(work) for work in (announcer.run(), finder.run())]
        await asyncio.sleep(30)
        held = [open_record(e, topic, NOW) async for e in directory.lookup(topic.dht_key)]
        assert [(each.record, each.sequence) for each in held] == [(RECORD, ahead + 1)]
        announcer.seen_own(ahead + 50)
        await asyncio.sleep(1)
        assert announcer.sequence == ahead + 1, "another machine with our identity is not raced"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(scenario())
