"""The crowd: who lives where, who talks with whom, and what is reported."""

import json

import pytest

from dhtvpn.lab.bench.processes import parse_proportional
from dhtvpn.lab.crowd import PER_HOME, NodeCost, Outcome, Talk, groups, topology
from dhtvpn.lab.crowd_report import to_json, verdict


@pytest.mark.parametrize("members", [2, PER_HOME, PER_HOME + 1, 100, 400])
def test_members_live_in_homes(members: int) -> None:
    found = topology(members, 1)
    assert len(found.members) == members
    assert all(host.behind for host in found.members)
    assert len(found.routers) == -(-members // PER_HOME)
    assert found.bootstraps[0].relay


@pytest.mark.parametrize(("members", "size"), [(2, 5), (20, 5), (21, 5), (100, 7), (5, 2), (3, 2)])
def test_everybody_talks_in_one_group(members: int, size: int) -> None:
    names = [f"m{number}" for number in range(members)]
    drawn = groups(names, size, 1)
    assert sorted(name for group in drawn for name in group) == sorted(names)
    assert all(2 <= len(group) <= size + 1 for group in drawn)
    assert drawn == groups(names, size, 1)


def outcome(*talks: Talk) -> Outcome:
    complete = None if any(talk.reply_s is None for talk in talks) else 9.0
    nodes = tuple(
        NodeCost(f"m{number}", 60_000_000, number * 10_000_000, 1.0, number) for number in (1, 2, 3)
    )
    return Outcome(3, 3, 2, 1.0, 5.0, complete, talks, nodes)


def test_figures_are_of_all_nodes_and_pairs() -> None:
    document = json.loads(
        json.dumps(to_json(outcome(Talk("m1", "m2", 0.5, "direct"), Talk("m1", "m3", 1.5, None))))
    )
    assert document["memory_mb"] == {"median": 60.0, "worst": 60.0}
    assert document["memory_share_mb"] == {"median": 20.0, "worst": 30.0}
    assert document["memory_all_mb"] == 60.0
    assert document["reply_s"] == {"median": 1.0, "worst": 1.5}
    assert document["paths"] == {"direct": 1, "none": 1}
    assert document["complete_s"] == 9.0 and document["silent"] == []


def test_a_pair_without_a_reply_is_named() -> None:
    found = outcome(Talk("m1", "m2", None, None))
    assert to_json(found)["silent"] == [["m1", "m2"]]
    assert to_json(found)["complete_s"] is None and to_json(found)["reply_s"]["median"] is None
    assert "1 pairs had no reply" in verdict(found)


def test_the_proportional_share_is_read() -> None:
    text = "55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:  9000 kB\nPss:  1234 kB\nPss_Anon: 77 kB\n"
    assert parse_proportional(text) == 1234 * 1024
