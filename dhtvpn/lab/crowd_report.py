"""The figures of a crowd, for people and for programs. Pure.

``to_json``: ``members``, ``group``, ``joins_at_once``; ``built_s``, ``joined_s``, ``complete_s`` (null: not
all who talk had a reply); ``memory_mb`` and ``memory_share_mb`` with ``median`` and ``worst``, and
``memory_all_mb``; ``cpu_s`` and ``peers`` of a node likewise; ``reply_s`` likewise, over all pairs with a
reply; ``paths``: how many pairs have which; ``silent``: pairs without a reply.
"""

from collections import Counter
from collections.abc import Iterable
from statistics import median
from typing import Any

from rich.table import Table

from dhtvpn.lab.crowd import Outcome

MB = 1e6


def to_json(outcome: Outcome) -> dict[str, Any]:
    """The document of ``dhtvpn lab crowd --json``."""
    nodes = outcome.nodes
    replies = [talk.reply_s for talk in outcome.talks if talk.reply_s is not None]
    return {
        "members": outcome.members,
        "group": outcome.group,
        "joins_at_once": outcome.at_once,
        "built_s": round(outcome.built_s, 1),
        "joined_s": round(outcome.joined_s, 1),
        "complete_s": None if outcome.complete_s is None else round(outcome.complete_s, 1),
        "memory_mb": _spread(node.alone / MB for node in nodes),
        "memory_share_mb": _spread(node.share / MB for node in nodes),
        "memory_all_mb": round(sum(node.share for node in nodes) / MB, 1),
        "cpu_s": _spread(node.cpu_s for node in nodes),
        "peers": _spread(node.peers for node in nodes),
        "reply_s": _spread(replies),
        "paths": dict(sorted(Counter(talk.path or "none" for talk in outcome.talks).items())),
        "silent": [[talk.one, talk.other] for talk in outcome.silent],
    }


def to_table(outcome: Outcome) -> Table:
    """The same for a person."""
    document = to_json(outcome)
    table = Table(title=f"{outcome.members} members, groups of {outcome.group} who talk")
    table.add_column("figure")
    table.add_column("median", justify="right")
    table.add_column("worst", justify="right")
    for key, text in (
        ("memory_mb", "memory of a node, alone on a machine, MB"),
        ("memory_share_mb", "memory of a node beside the others here, MB"),
        ("cpu_s", "CPU seconds of a node, since its start"),
        ("peers", "peers of a node"),
        ("reply_s", "first reply of a pair, seconds"),
    ):
        table.add_row(text, _figure(document[key]["median"]), _figure(document[key]["worst"]))
    return table


def verdict(outcome: Outcome) -> list[str]:
    """What is to be said below the table."""
    paths = Counter(talk.path or "no path" for talk in outcome.talks)
    ways = ", ".join(f"{count} {path}" for path, count in sorted(paths.items()))
    lines = [
        f"all nodes ran after {outcome.joined_s:.1f} s, {outcome.at_once} joins at a time",
        f"{len(outcome.talks)} pairs: {ways}",
        f"all nodes together: {sum(node.share for node in outcome.nodes) / MB:.0f} MB",
    ]
    if outcome.complete_s is None:
        lines.append(f"{len(outcome.silent)} pairs had no reply")
    else:
        lines.append(f"everybody who talks had a reply after {outcome.complete_s:.1f} s")
    return lines


def _spread(values: Iterable[float]) -> dict[str, float | None]:
    found = list(values)
    if not found:
        return {"median": None, "worst": None}
    return {"median": round(median(found), 2), "worst": round(max(found), 2)}


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
