"""The matrix: which pairs there are, what each is built of, when it is not in order."""

from dataclasses import replace

import pytest

from dhtvpn.errors import UsageError
from dhtvpn.lab import matrix, matrix_report
from dhtvpn.lab.experiment import PairResult
from dhtvpn.lab.matrix import PAIRS, Outcome, Pair, chosen, topology_of
from dhtvpn.lab.topology import ExpectedPath

RELAYED = {
    *(f"{kind}-ipv6" for kind in ("public", "open", "address", "port", "symmetric", "carrier")),
    "port-symmetric",
    "symmetric-symmetric",
    "symmetric-carrier",
    "no-hairpin",
}


def test_every_pair_of_kinds_and_three_behind_one_nat() -> None:
    assert len(PAIRS) == 7 * 8 // 2 + 3
    assert len({pair.name for pair in PAIRS}) == len(PAIRS)


def test_only_these_pairs_need_a_relay() -> None:
    expected = {}
    for pair in PAIRS:
        built = topology_of(pair, None, 1, relay=True)
        one, other = built.members
        expected[pair.name] = built.expected_path(one, other)
    assert {name for name, path in expected.items() if path is ExpectedPath.RELAY} == RELAYED
    assert ExpectedPath.NONE not in expected.values()


def test_a_carriers_nat_stands_before_the_homes() -> None:
    built = topology_of(Pair("public", "carrier"), None, 1, relay=False)
    one, other = built.members
    assert built.nat_label(one) == "public"
    assert built.nat_label(other) == "EIM/APDF EIM/ADF"


def test_choosing_by_kind_or_by_pair() -> None:
    assert chosen([]) == list(PAIRS)
    assert [pair.name for pair in chosen(["symmetric-port", "same-lan"])] == ["port-symmetric", "same-lan"]
    assert len(chosen(["symmetric"])) == 7
    with pytest.raises(UsageError, match="no pair 'nix'"):
        chosen(["nix"])


def result(seconds: float | None, path: str | None, expected: ExpectedPath) -> PairResult:
    return PairResult("one", "other", "EIM/APDF", "APDM/APDF", expected, seconds, path, ipv6=True)


DIRECT_AT_ONCE = Outcome(Pair("port", "port"), result(0.8, "direct", ExpectedPath.DIRECT), "direct")
UPGRADED = Outcome(Pair("port", "port"), result(1.4, "relayed", ExpectedPath.DIRECT), "direct", 0.5)
STUCK = Outcome(Pair("open", "port"), result(1.0, "relayed", ExpectedPath.DIRECT), "relayed")
RELAY = Outcome(Pair("port", "symmetric"), result(2.0, "relayed", ExpectedPath.RELAY), "relayed")
FORESEEN = replace(RELAY, path="direct", upgrade_s=1.0)
LOST = Outcome(Pair("symmetric", "symmetric"), result(None, None, ExpectedPath.RELAY), None)


def test_what_is_in_order_and_what_is_not() -> None:
    for fine in (DIRECT_AT_ONCE, UPGRADED, RELAY, FORESEEN):
        assert fine.complaint is None
    assert STUCK.complaint == "relayed, and could be direct"
    assert LOST.complaint == "no connection"
    assert matrix.words(UPGRADED) == "relayed after 1.40 s, direct 0.5 s later"
    assert matrix.words(LOST) == "no connection"


def test_a_summary_of_several_runs() -> None:
    good = matrix_report.Summary((DIRECT_AT_ONCE, RELAY, UPGRADED, RELAY))
    assert good.ok
    assert (good.median_s, good.worst_s) == (1.7, 2.0)
    assert not good.within_limits
    assert "first reply: median 1.70 s, worst 2.00 s, NOT within 1.5 and 4 s" in matrix_report.verdict(good)
    bad = matrix_report.Summary((DIRECT_AT_ONCE, STUCK, LOST))
    assert not bad.ok
    assert bad.within_limits
    assert bad.complaints == [
        ("open-port", "relayed, and could be direct"),
        ("symmetric-symmetric", "no connection"),
    ]


def test_the_shape_for_programs() -> None:
    document = matrix_report.to_json(matrix_report.Summary((UPGRADED, LOST)), {"links_ms": 20.0})
    assert document["ok"] is False
    assert document["summary"] == {
        "pairs": 2,
        "connected": 1,
        "direct": 1,
        "first_reply_s": {"median": 1.4, "worst": 1.4},
        "within_limits": True,
    }
    assert document["complaints"] == [{"pair": "symmetric-symmetric", "words": "no connection"}]
    assert document["pairs"][0] == {
        "pair": "port-port",
        "nat": ["EIM/APDF", "APDM/APDF"],
        "could_be_direct": True,
        "runs": [
            {
                "connected": True,
                "first_path": "relayed",
                "path": "direct",
                "first_reply_s": 1.4,
                "upgrade_s": 0.5,
            }
        ],
    }


def test_the_table_has_a_row_for_each_pair() -> None:
    table = matrix_report.to_table(matrix_report.Summary((DIRECT_AT_ONCE, UPGRADED, LOST)))
    assert table.row_count == 2
    assert list(table.columns[2].cells) == ["direct", "none"]
