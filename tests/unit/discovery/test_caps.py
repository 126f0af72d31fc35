"""Memory given by the owner, divided: what is counted stays within it, with room for fragmentation."""

import pytest

from dhtvpn.discovery.caps import DEFAULT_CAPS, Caps
from dhtvpn.discovery.floors import FLOOR_OVERHEAD
from dhtvpn.discovery.subscriptions import SUBSCRIPTION_OVERHEAD


@pytest.mark.parametrize("octets", [1_000_000, 64_000_000, 16_000_000_000])
def test_all_tables_together_take_two_thirds(octets):
    caps = Caps.for_memory(octets, 50.0)
    taken = caps.stored_octets + caps.floors * FLOOR_OVERHEAD + caps.subscriptions * SUBSCRIPTION_OVERHEAD
    assert 0.65 * octets < taken <= 0.69 * octets
    assert min(caps.floors, caps.subscriptions) >= 90
    assert caps.answers_per_s == 50.0


def test_a_members_caps_are_less_than_a_volunteers():
    assert DEFAULT_CAPS.stored_octets < Caps.for_memory(64_000_000, 1).stored_octets
