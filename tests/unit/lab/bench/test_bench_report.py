"""Tables that fit, Markdown that is a table, JSON that says what it is."""

import json
from io import StringIO

from rich.console import Console

from dhtvpn.lab.bench import known_tunnels, report, schedule
from dhtvpn.lab.bench.report import Machine, Report
from dhtvpn.lab.bench.run import Results

MACHINE = Machine("Fast One", 2, 24.0, "6.1.0", "3.11.2", "2026-01-02")


def results() -> Results:
    found = Results()
    for _ in range(2):
        found.add("none", {"tcp_gbit_s": 16.0, "softirq_s_per_gb": 0.05, "machine_s_per_gb": 0.5})
        found.add("wireguard-go", {"tcp_gbit_s": 0.8, "cpu_s_per_gb": 12.0})
    for gbit_s in (3.2, 4.8):
        found.add("dhtvpn-aes", {"tcp_gbit_s": gbit_s, "cpu_s_per_gb": 4.0, "memory_mb": 80.0})
    found.add("dhtvpn-aes", {"udp_kpackets_s": None})
    found.add("dhtvpn-aes", {"udp_kpackets_s": 90.0})
    found.add("dhtvpn-stock", {"tcp_gbit_s": None})
    found.failures.append("dhtvpn-stock: tcp in round 1: nothing arrived")
    return found


def outcome(quick: bool = False) -> Report:
    tunnels = known_tunnels.built_in()
    left_out = dict.fromkeys(("tinc", "n2n", "nebula", "fastd", "dhtvpn-chacha"), "not found on PATH")
    measures = schedule.chosen([], quick)
    return Report(tunnels, left_out, measures, 2, quick, results(), MACHINE)


def rendered(taken: Report) -> str:
    console = Console(width=80, file=StringIO())
    with console.capture() as capture:
        for table in report.to_tables(taken):
            console.print(table)
    return capture.get()


def test_the_tables_fit_80_columns_and_hold_medians_spreads_and_ratios() -> None:
    text = rendered(outcome())
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "4.00 ±20%" in text
    assert "times wireguard-go" in text and "times no tunnel" in text
    row = next(line for line in text.partition("times wireguard-go")[2].splitlines() if "AES-GCM" in line)
    assert row.split()[2] == "5.00"


def test_what_failed_is_seen() -> None:
    taken = outcome()
    text = rendered(taken)
    assert "failed" in next(line for line in text.splitlines() if "stock peer" in line)
    assert "90.0 (1" in text
    assert "Failed: dhtvpn-stock: tcp in round 1: nothing arrived." in list(report.notes(taken))


def test_left_out_tunnels_have_no_row_but_a_reason() -> None:
    taken = outcome()
    assert "tinc" not in rendered(taken)
    assert "Left out: tinc: not found on PATH." in list(report.notes(taken))


def test_a_quick_run_says_what_it_cut() -> None:
    quick = list(report.notes(outcome(quick=True)))
    assert "A quick run: every measurement is shorter." in quick
    assert "Not measured: tcp4, both." in quick
    assert not any("quick" in note or "Not measured" in note for note in report.notes(outcome()))


def test_markdown_has_the_machine_and_whole_tables() -> None:
    lines = report.to_markdown(outcome())
    assert lines[0] == (
        "Fast One, 2 cores, 24 GB, Linux 6.1.0, Python 3.11.2, 2026-01-02; 2 rounds; "
        "medians, and half the range in percent of the median."
    )
    widths: set[int] = set()
    for line in [*lines, ""]:
        if line.startswith("|"):
            widths.add(line.count("|"))
        else:
            assert len(widths) <= 1
            widths.clear()


def test_json_is_complete_and_plain() -> None:
    document = json.loads(json.dumps(report.to_json(outcome())))
    assert document["machine"] == {
        "processor": "Fast One",
        "cores": 2,
        "memory_gb": 24.0,
        "kernel": "6.1.0",
        "python": "3.11.2",
    }
    assert document["date"] == "2026-01-02"
    assert (document["rounds"], document["quick"], document["cut"]) == (2, False, [])
    assert document["left_out"]["tinc"] == "not found on PATH"
    assert set(document["tunnels"]) == {"none", "dhtvpn-aes", "dhtvpn-stock", "wireguard-go"}
    assert document["figures"]["tcp_gbit_s"]["unit"] == "Gbit/s"
    assert document["tunnels"]["dhtvpn-aes"]["figures"]["tcp_gbit_s"] == {
        "median": 4.0,
        "low": 3.2,
        "high": 4.8,
        "each": [3.2, 4.8],
        "to_wireguard_go": 5.0,
        "to_none": 0.25,
    }
    missing = document["tunnels"]["dhtvpn-stock"]["figures"]["tcp_gbit_s"]
    assert (missing["median"], missing["each"], missing["to_none"]) == (None, [None], None)
    assert set(document["tunnels"]["none"]["figures"]) == set(document["figures"])


def test_todays_machine() -> None:
    machine = report.this_machine()
    assert machine.cores >= 1
    assert machine.processor in str(machine)
