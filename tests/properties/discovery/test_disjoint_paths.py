"""Lookups over disjoint paths, in a network that is drawn: who captures a path gets no other."""

import random

from hypothesis import assume, given
from hypothesis import strategies as st

from dhtvpn.discovery.contact import Contact, distance
from dhtvpn.discovery.disjoint_path import MAX_ASKED, MAX_ENTRIES, REPLICAS
from dhtvpn.discovery.shortlist import ALPHA, PATH_ALPHA, PATHS, Shortlist
from dhtvpn.endpoint import Endpoint

NAMED = 8
STEP = 4
"""A node knows others about this many times nearer."""


class Drawn:
    """Nodes with random ids. Honest ones know others some way nearer to the target than they are themselves;
    hostile ones name the closest of their own kind at once."""

    def __init__(self, seed, honest, hostile):
        self.rng = random.Random(seed)
        self.target = self.rng.randbytes(20)
        everybody = [
            Contact(self.rng.randbytes(20), Endpoint(f"198.18.{number // 250}.{number % 250 + 1}", 4690))
            for number in range(honest + hostile)
        ]
        self.honest, self.hostile = everybody[:honest], everybody[honest:]

    def closest(self, contacts, count=NAMED):
        return sorted(contacts, key=lambda c: distance(c.node_id, self.target))[:count]

    def answer(self, one):
        if one in self.hostile:
            return self.closest(self.hostile)
        by_distance = self.closest(self.honest, len(self.honest))
        nearer = by_distance.index(one) // STEP
        return by_distance[nearer : nearer + NAMED]


def search(shortlist, drawn, answer):
    """One lookup whose queries end in random order; returns whom it asked, in order."""
    asked, running = [], []
    while True:
        while (one := shortlist.next_to_ask()) is not None:
            asked.append(one)
            running.append(one)
        assert shortlist.in_flight() <= max(ALPHA, PATHS * PATH_ALPHA)
        assert len(shortlist) <= PATHS * MAX_ENTRIES
        if not running:
            break
        one = running.pop(drawn.rng.randrange(len(running)))
        what = drawn.rng.random()
        if what < 0.1:
            shortlist.slow(one)
        told = answer(one)
        if told is None:
            shortlist.failed(one)
        else:
            shortlist.answered(one, told)
    assert shortlist.finished()
    return asked


@given(seed=st.integers(0, 2**32), dead_percent=st.integers(0, 60), start=st.integers(1, 40))
def test_every_lookup_ends_asks_nobody_twice_and_hears_the_closest_living(seed, dead_percent, start):
    drawn = Drawn(seed, 60, 0)
    dead = set(drawn.rng.sample(drawn.honest, 60 * dead_percent // 100))
    living = [c for c in drawn.honest if c not in dead]
    shortlist = Shortlist(drawn.target)
    seeds = drawn.rng.sample(drawn.honest, start)
    assume(not dead.issuperset(seeds))
    shortlist.start(seeds)
    asked = search(shortlist, drawn, lambda one: None if one in dead else drawn.honest)
    assert len(asked) == len(set(asked)) <= PATHS * MAX_ASKED
    assert shortlist.closest_answered() == drawn.closest(living, REPLICAS)


@given(seed=st.integers(0, 2**32), captured=st.sets(st.integers(0, PATHS - 1), max_size=PATHS - 1))
def test_hostile_nodes_that_name_only_each_other_capture_no_lookup_that_has_an_honest_path(seed, captured):
    """Every starting contact of the captured paths is hostile, and of the nodes beyond a third."""
    drawn = Drawn(seed, 300, 150)
    seeds = drawn.closest([*drawn.honest[:12], *drawn.hostile[:6]], 18)
    drawn.honest, drawn.hostile = drawn.honest[12:], drawn.hostile[6:]
    for number, one in enumerate(seeds):
        (drawn.hostile if number % PATHS in captured else drawn.honest).append(one)
    shortlist = Shortlist(drawn.target)
    shortlist.start(seeds)
    asked = search(shortlist, drawn, drawn.answer)
    assert len(asked) == len(set(asked))
    heard = set(shortlist.closest_answered())
    assert heard & set(drawn.closest(drawn.honest, 1)), "the closest honest node holds the record"
