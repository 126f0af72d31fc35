"""previous, current, next: who takes whose place."""

import itertools

from dhtvpn.wireguard.keypair import Keypair, KeypairSlots


def keypair(local: int, remote: int, *, initiator: bool, created_at: float = 0.0) -> Keypair:
    return Keypair(local, remote, bytes([1]) * 32, bytes([2]) * 32, initiator, created_at)


def test_an_initiators_keypair_is_current_at_once() -> None:
    slots: KeypairSlots[Keypair] = KeypairSlots()
    made = [keypair(number, number, initiator=True) for number in range(3)]
    assert [slots.install(one) for one in made] == [[], [], [made[0]]]
    assert (slots.previous, slots.current, slots.next) == (made[1], made[2], None)


def test_a_responders_keypair_waits_until_it_is_confirmed() -> None:
    slots: KeypairSlots[Keypair] = KeypairSlots()
    old, new = keypair(1, 1, initiator=False), keypair(2, 2, initiator=False)
    slots.install(old)
    assert slots.current is None
    assert slots.confirm(1) == []
    assert slots.install(new) == []
    assert (slots.current, slots.next) == (old, new)
    assert slots.confirm(1) is None
    assert slots.confirm(2) == []
    assert (slots.previous, slots.current, slots.next) == (old, new, None)


def test_an_unconfirmed_keypair_is_replaced() -> None:
    slots: KeypairSlots[Keypair] = KeypairSlots()
    first, second = keypair(1, 1, initiator=False), keypair(2, 2, initiator=False)
    slots.install(first)
    assert slots.install(second) == [first]
    assert slots.confirm(1) is None


def test_clear_returns_all() -> None:
    slots: KeypairSlots[Keypair] = KeypairSlots()
    made = [keypair(1, 1, initiator=True), keypair(2, 2, initiator=False)]
    for one in made:
        slots.install(one)
    assert slots.clear() == made
    assert list(slots) == []


def test_two_handshakes_at_once_settle_on_one_keypair() -> None:
    """Each side is the initiator of one keypair and the responder of the other; whichever the indices and
    whoever's keepalive comes first, both send with the same one in the end and can still open the other."""
    for a1, a2, b1, b2 in itertools.permutations(range(4)):
        for first in "ab":
            a: KeypairSlots[Keypair] = KeypairSlots()
            b: KeypairSlots[Keypair] = KeypairSlots()
            a.install(keypair(a2, b2, initiator=False))
            b.install(keypair(b1, a1, initiator=False))
            a.install(keypair(a1, b1, initiator=True))
            b.install(keypair(b2, a2, initiator=True))
            for sender, receiver in ((a, b), (b, a)) if first == "a" else ((b, a), (a, b)):
                assert sender.current is not None
                receiver.confirm(sender.current.remote_index)
            assert a.current is not None and b.current is not None
            assert a.current.local_index == b.current.remote_index
            assert {one.local_index for one in a} == {a1, a2}
            assert {one.local_index for one in b} == {b1, b2}


def test_keys_stay_out_of_repr_and_keypairs_expire() -> None:
    one = keypair(1, 2, initiator=True, created_at=10.0)
    assert "\\x01" not in repr(one)
    assert "key" not in repr(one).replace("Keypair", "")
    assert not one.expired(189.9)
    assert one.expired(190.0)
