"""The report counts a pair as good only when every run was."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from dhtvpn.lab import report, topologies
from dhtvpn.lab.experiment import PairResult
from dhtvpn.lab.topology import ExpectedPath

GOOD = PairResult(
    "laptop",
    "phone",
    "EIM/APDF",
    "EIM/APDF",
    ExpectedPath.DIRECT,
    first_reply_s=1.0,
    path="direct",
    ipv6=True,
    rtt_ms=0.5,
    tcp_mbit_s=900.0,
)
LOST = replace(GOOD, first_reply_s=None, path=None, ipv6=False, rtt_ms=None, tcp_mbit_s=None)


def rendered(summary: report.Report) -> str:
    console = Console(width=80, file=StringIO())
    with console.capture() as capture:
        console.print(report.to_table(summary))
    return capture.get()


def test_median_and_worst_over_the_runs() -> None:
    runs = [[replace(GOOD, first_reply_s=seconds)] for seconds in (3.0, 1.0, 1.5)]
    summary = report.summarise(topologies.PAIR, runs)
    value = report.to_json(summary)
    assert value["ok"] is True
    assert value["runs"] == 3
    assert value["pairs"] == [
        {
            "pair": ["laptop", "phone"],
            "nat": ["EIM/APDF", "EIM/APDF"],
            "expected": "direct",
            "path": "direct",
            "connected": True,
            "first_reply_s": {"median": 1.5, "worst": 3.0, "each": [3.0, 1.0, 1.5]},
            "ipv6": True,
            "rtt_ms": 0.5,
            "tcp_mbit_s": 900.0,
        }
    ]
    table = rendered(summary)
    assert "pair: 3 runs" in table
    assert "1.50" in table
    assert "3.00" in table


def test_one_lost_run_fails_the_pair_and_hides_no_median() -> None:
    summary = report.summarise(topologies.PAIR, [[GOOD], [LOST]])
    (pair,) = summary.pairs
    assert not summary.ok
    assert pair.first_reply_median_s is None
    assert pair.first_reply_worst_s is None
    assert pair.tcp_mbit_s == 900.0
    assert "FAILED" in rendered(summary)
    assert "1/2 lost" in rendered(summary)


def test_a_pair_whose_ipv6_address_is_silent_is_not_connected() -> None:
    summary = report.summarise(topologies.PAIR, [[replace(GOOD, ipv6=False)]])
    assert not summary.ok
    assert "no IPv6" in rendered(summary)
    assert "its IPv6 address does not" in report.legend(summary)


@pytest.mark.parametrize("expected", [ExpectedPath.RELAY, ExpectedPath.NONE])
def test_a_pair_without_a_direct_path_may_fail(expected: ExpectedPath) -> None:
    summary = report.summarise(topologies.SYMMETRIC_PAIR, [[replace(LOST, expected=expected)]])
    assert summary.ok
    assert "none" in rendered(summary)
    assert "none: these NATs leave no direct path" in report.legend(summary)
    assert report.to_json(summary)["pairs"][0]["connected"] is False


def test_the_table_fits_eighty_columns_without_a_cut_figure() -> None:
    rows = [
        GOOD,
        replace(GOOD, other="server", nat_other="public", rtt_ms=12.34, tcp_mbit_s=12345.6),
        replace(GOOD, one="phone", other="server", first_reply_s=12.345),
        replace(LOST, one="laptop", other="desk", nat_other="APDM/APDF", expected=ExpectedPath.RELAY),
    ]
    table = rendered(report.summarise(topologies.DEMO, [rows, rows]))
    assert all(len(line) <= 80 for line in table.splitlines())
    for word in ("laptop - phone", "EIM/APDF - EIM/APDF", "12.35", "12.34", "12346", "direct"):
        assert word in table


def test_the_legend_explains_the_words_that_occur() -> None:
    words = report.legend(report.summarise(topologies.PAIR, [[GOOD]])).splitlines()
    assert words == ["EIM: endpoint-independent mapping", "APDF: address-and-port-dependent filtering"]


def test_the_legend_explains_ipv6_beside_a_nat() -> None:
    pair = replace(GOOD, nat_one="EIM/APDF+6", nat_other="public+6")
    summary = report.summarise(topologies.IPV6_ONLY, [[pair], [pair]])
    assert report.legend(summary).splitlines() == [
        "EIM: endpoint-independent mapping",
        "APDF: address-and-port-dependent filtering",
        "+6: and an IPv6 address that is routed, not translated",
    ]
    assert all(len(line) <= 80 for line in rendered(summary).splitlines())


def test_no_pairs_is_an_empty_report() -> None:
    summary = report.summarise(topologies.PAIR, [])
    assert summary.ok
    assert report.to_json(summary)["pairs"] == []
    assert report.legend(summary) == ""
