"""The explanation of a path, for a person: one sentence first, then what it rests on."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dhtvpn.cli.output import plain
from dhtvpn.cli.views import NOTHING, duration, milliseconds, path_of, through

RESULT_STYLES = {"succeeded": "green", "failed": "red", "no answer": "yellow"}
CHANGES_SHOWN = 5


def why_view(document: Mapping[str, Any]) -> RenderableType:
    """The whole document of ``GET /v1/why``."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(document):
        facts.add_row(name, Text(plain(value)))
    parts: list[RenderableType] = [_headline(document), Text(), facts]
    if document["pairs"]:
        parts += [Text(), Text(_tried(document), style="bold"), _pairs(document["pairs"])]
    if document["changes"]:
        parts += [Text(), Text("Last changes", style="bold"), _changes(document["changes"])]
    if document["advice"]:
        parts += [Text(), Text("What would help", style="bold"), _advice(document["advice"])]
    return Group(*parts)


def _headline(document: Mapping[str, Any]) -> Text:
    peer, path = document["peer"], document["path"]
    name = peer["name"]
    if path is None:
        return Text(plain(f"{name} is {peer['state']}: there is no path."), style="red")
    reason = f": {path['why']}" if path["why"] else ""
    style = "green" if path["path"] == "direct" else "yellow"
    return Text(plain(f"{name} is reached {path_of(path)}{reason}."), style=style)


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    peer, path = document["peer"], document["path"]
    found = []
    if path is not None:
        measured = f"round trip {milliseconds(peer['rtt_ms'])}"
        if path["since"] is not None:
            measured += f", for {duration(max(0.0, time.time() - path['since']))}"
        found.append(("Path", measured))
    found += [("Our NAT", _nat(document["own"])), ("Its NAT", _nat(document["theirs"]))]
    if prediction := document["prediction"]:
        times = "once" if prediction["failed"] == 1 else f"{prediction['failed']} times"
        failed = f"; in vain {times}" if prediction["failed"] else ""
        found.append(("Foreseen", f"it may see us at {', '.join(prediction['guesses'])}{failed}"))
    age_s = document["record_age_s"]
    found.append(("Record", "none seen in this run" if age_s is None else f"seen {duration(age_s)} ago"))
    if peer.get("found_by"):
        found.append(("Found by", peer["found_by"]))
    if ways := document["ways"]:
        found.append(("Relays", "; ".join(through(way) for way in ways)))
    return found


def _nat(side: Mapping[str, Any]) -> str:
    if side["mapping"] == "none":
        return "none"
    return f"mapping {side['mapping']}, filtering {side['filtering']}"


def _tried(document: Mapping[str, Any]) -> str:
    number, age_s = document["attempts"], document["checked_s"]
    when = "now" if document["checking"] else f"{duration(age_s)} ago" if age_s is not None else "before"
    return f"Candidate pairs, attempt {max(number, 1)}, {when}"


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    table.add_column("ITS CANDIDATE", overflow="fold")
    table.add_column("KIND", no_wrap=True)
    table.add_column("RESULT", no_wrap=True)
    table.add_column("CHECKS", no_wrap=True, justify="right")
    table.add_column("RTT", no_wrap=True, justify="right")
    table.add_column("", overflow="fold")
    for pair in pairs:
        note = "chosen" if pair["nominated"] else pair["reason"] or ""
        table.add_row(
            Text(plain(pair["remote"])),
            Text(plain(pair["kind"].replace("_", "-"))),
            Text(plain(pair["result"]), style=RESULT_STYLES.get(pair["result"], "")),
            str(pair["requests"]),
            milliseconds(pair["rtt_ms"]),
            Text(plain(note)),
        )
    return table


def _changes(changes: Sequence[Mapping[str, Any]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for change in changes[-CHANGES_SHOWN:]:
        moment = time.strftime("%H:%M:%S", time.localtime(change["time"]))
        before, after = (_end(change[key]) for key in ("from", "to"))
        grid.add_row(moment, Text(plain(f"{before} → {after}: {change['why']}")))
    return grid


def _end(path: Mapping[str, Any] | None) -> str:
    return NOTHING if path is None else path_of(path)


def _advice(advice: Sequence[Mapping[str, Any]]) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for each in advice:
        grid.add_row("*", Text(plain(each["text"])))
    return grid
