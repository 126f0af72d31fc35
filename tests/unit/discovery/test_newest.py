"""The reader's merge: verified, newest per slot, capped."""

from discovery_simulation import UNIX_START, fake_envelope, fake_inspect

from dhtvpn.discovery.newest import NewestEnvelopes
from dhtvpn.discovery.storage import MAX_SLOTS_PER_TOPIC
from dhtvpn.discovery.wire import HAVE_LENGTH, MAX_HAVE
from dhtvpn.drops import Drops

KEY, NOW = bytes(20), float(UNIX_START)


def test_merges_by_slot_and_highest_sequence():
    newest = NewestEnvelopes(KEY, fake_inspect, Drops())
    offered = [
        fake_envelope(KEY, 1, 2),
        fake_envelope(KEY, 1, 1),
        fake_envelope(KEY, 2, 1),
        fake_envelope(KEY, 1, 3),
    ]
    assert [newest.offer(envelope, NOW) for envelope in offered] == [True, False, True, True]
    assert newest.take() == [offered[3], offered[2]]
    assert newest.take() == []
    assert not newest.offer(offered[3], NOW)


def test_fakes_are_counted_and_leave_no_trace():
    drops = Drops()
    newest = NewestEnvelopes(KEY, fake_inspect, drops)
    for fake in (b"", b"x" * 901, fake_envelope(bytes([1] * 20), 1, 1), fake_envelope(KEY, 1, 1, -1)):
        assert not newest.offer(fake, NOW)
    assert newest.take() == []
    assert newest.have() == b""
    assert drops.as_dict() == {"record.expired": 1, "record.format": 1, "record.size": 1, "record.topic": 1}


def test_is_capped_and_frees_what_expires():
    newest = NewestEnvelopes(KEY, fake_inspect, Drops())
    for writer in range(MAX_SLOTS_PER_TOPIC):
        assert newest.offer(fake_envelope(KEY, writer, 1, expires_in=10), NOW)
    assert not newest.offer(fake_envelope(KEY, 999, 1), NOW)
    assert len(newest.have()) == MAX_HAVE * HAVE_LENGTH
    assert newest.offer(fake_envelope(KEY, 999, 1), NOW + 11)
    assert len(newest.have()) == HAVE_LENGTH
