"""Members behind every two kinds of access connect, directly where they can."""

import json
import subprocess
import sys

import pytest

from dhtvpn.lab import matrix
from dhtvpn.lab.link_schedule import Conditions

pytestmark = pytest.mark.netns

LINES = Conditions(0.02)
SHORT = ("port-carrier", "address-symmetric", "same-lan", "ipv6-ipv6", "hairpin")


@pytest.mark.parametrize("name", SHORT)
def test_a_pair_that_can_be_direct_is(name: str, laboratory_possible: None) -> None:
    (pair,) = matrix.chosen([name])
    outcome = matrix.run_pair(pair, LINES, seed=1, relay=matrix.bootstrap_nodes_relay())
    assert outcome.could_be_direct
    assert outcome.complaint is None


def test_homes_behind_one_nat_that_turns_nothing_round_use_a_relay(laboratory_possible: None) -> None:
    (pair,) = matrix.chosen([matrix.NO_HAIRPIN])
    outcome = matrix.run_pair(pair, LINES, seed=1, relay=True)
    assert not outcome.could_be_direct
    assert outcome.connected and outcome.path == "relayed"
    assert outcome.complaint is None


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_whole_matrix(laboratory_possible: None) -> None:
    command = [sys.executable, "-m", "dhtvpn", "lab", "matrix", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert json.loads(done.stdout)["complaints"] == []
    assert done.returncode == 0
