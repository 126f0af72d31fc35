"""A few joins of the discovery measurement: whole, and within its limits even on a busy machine."""

import json
import subprocess
import sys

import pytest

from dhtvpn.lab.discovery.report import MEDIAN_S, WORST_WITHOUT_WATCH_S

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("laboratory_possible")]

ROUNDS = 3
TOLERANCE = 3.0
"""Other work takes the processor from the processes that start here."""

COMMAND = [sys.executable, "-m", "dhtvpn", "lab", "discovery", "--rounds", str(ROUNDS), "--json"]


@pytest.mark.parametrize(("which", "limit_s"), [("watch", MEDIAN_S), ("no-watch", WORST_WITHOUT_WATCH_S)])
def test_a_second_member_is_found_soon(which: str, limit_s: float) -> None:
    done = subprocess.run(
        [*COMMAND, "--only", which], capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(done.stdout)
    (median,) = [one for one in document["figures"] if one["name"].endswith("found, median")]
    assert median["value"] is not None, done.stderr
    assert median["value"] <= TOLERANCE * limit_s
    rounds = document[which]
    assert len(rounds) == ROUNDS
    for one in rounds:
        phases = one["phases"]
        assert phases["code_loaded"] < phases["node_up"] < phases["dht_reached"] < one["found_s"]
        assert one["found_s"] <= one["connected_s"]
