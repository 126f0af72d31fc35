"""Receiver indices: one tag for all of a table, and nothing twice."""

import random

from dhtvpn.wireguard.constants import MAX_PEERS
from dhtvpn.wireguard.indices import IndexTable


def test_all_indices_share_the_tag_and_are_unlike_otherwise() -> None:
    table: IndexTable[int] = IndexTable(random.Random(1).randbytes)
    indices = [table.allocate(owner) for owner in range(4 * MAX_PEERS)]
    assert {index >> 16 for index in indices} == {table.tag}
    assert len(set(indices)) == len(indices)
    assert all(table.owner(index) == owner for owner, index in enumerate(indices))


def test_two_tables_have_tags_of_their_own() -> None:
    rng = random.Random(2)
    assert IndexTable(rng.randbytes).tag != IndexTable(rng.randbytes).tag


def test_a_collision_goes_on_within_the_tag() -> None:
    table: IndexTable[str] = IndexTable(lambda size: b"\xff" * size)
    assert [table.allocate("a"), table.allocate("b")] == [0xFFFFFFFF, 0xFFFF0000]
    table.release(0xFFFFFFFF)
    assert table.allocate("c") == 0xFFFFFFFF
