"""Many members in one network: a few here in every run, a hundred when asked for."""

import json

import pytest

from dhtvpn.lab import namespaces, register
from dhtvpn.lab.crowd import Outcome, default_at_once, run
from dhtvpn.lab.crowd_report import to_json

pytestmark = pytest.mark.netns

LEAST_MB, MOST_MB = 20, 120
"""Of a node: Python alone takes more than the one, and no node has ever taken the other."""


def assert_complete(outcome: Outcome, pairs: int) -> None:
    assert len(outcome.talks) == pairs and not outcome.silent
    assert outcome.complete_s is not None and outcome.joined_s < outcome.complete_s
    for node in outcome.nodes:
        assert LEAST_MB < node.alone / 1e6 < MOST_MB
        assert 0 < node.share < node.alone


def test_five_members_talk(laboratory_possible: None) -> None:
    before = {entry.tag for entry in register.entries()}
    said: list[str] = []
    prefixes: list[str] = []

    def progress(text: str) -> None:
        said.append(text)
        crowds = [e for e in register.entries() if e.topology == "crowd" and e.tag not in before]
        prefixes.extend(entry.prefix for entry in crowds)

    assert_complete(run(5, 5, default_at_once(), 1, progress), 10)
    assert "5/5 joined" in said and "10/10 pairs talked" in said
    left = [name for name in namespaces.all_of_ours() if name.startswith(tuple(prefixes))]
    assert prefixes and not left


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("roster", [None, 8])
def test_a_hundred_members_talk(
    roster: int | None, laboratory_possible: None, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(100, 5, default_at_once(), 1, lambda _: None, roster=roster)
    with capsys.disabled():
        print(f"\n{json.dumps(to_json(outcome))}")  # noqa: T201 - the figures are what this is run for
    assert_complete(outcome, 200)
