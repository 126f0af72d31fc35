"""The live view of ``dhtvpn status --watch``: one line a peer, fitted to the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from dhtvpn.cli.output import plain
from dhtvpn.cli.throughput import Rate
from dhtvpn.cli.views import NOTHING, STATE_STYLES, duration, milliseconds, size

PATH_STYLES: Final = {"direct": "green", "relayed": "yellow"}
WIDE, MIDDLE = 96, 62
"""Columns from which addresses and sources, and from which round trips, are shown."""
HEAD_LINES: Final = 6
"""Beside the lines of peers: facts, blank, heading, rule, and what is left out."""
NAME_WIDTH, NARROW_NAME_WIDTH = 20, 12


class WatchView:
    """The status document with the rates of its peers."""

    def __init__(self, document: Mapping[str, Any], rates: Mapping[str, Rate]) -> None:
        self._document, self._rates = document, rates

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        peers = self._document["peers"]
        yield from self._facts()
        yield Text()
        if not peers:
            yield Text("No other member seen yet.")
            return
        room = len(peers) if options.height is None else max(1, options.height - HEAD_LINES)
        shown = peers if len(peers) <= room else sorted(peers, key=self._importance)[:room]
        yield self._table(shown, options.max_width)
        if len(shown) < len(peers):
            yield Text(f"and {len(peers) - len(shown)} more: 'dhtvpn peers' lists all", style="dim")

    def _facts(self) -> list[Text]:
        network, node, nat = (self._document[part] for part in ("network", "node", "nat"))
        connected = [peer for peer in self._document["peers"] if peer["state"] == "connected"]
        direct = sum(peer["path"] == "direct" for peer in connected)
        down, up = (sum(rate[way] for rate in self._rates.values()) for way in (0, 1))
        lines = (
            f"{network['name']}: {node['name']}, {node['ipv4'] or node['ipv6']}, up "
            f"{duration(self._document['uptime_s'])}; NAT {nat['mapping']}",
            f"{len(connected)} of {len(self._document['peers'])} connected, {direct} directly; "
            f"down {_per_second(down)}, up {_per_second(up)}",
        )
        return [Text(plain(line), no_wrap=True, overflow="ellipsis") for line in lines]

    def _importance(self, peer: Mapping[str, Any]) -> tuple[float, str]:
        """Where there is not room for all: busy ones first, then connected ones."""
        rate = self._rates.get(peer["id"], Rate(0.0, 0.0))
        return (-(rate.down + rate.up) - (peer["state"] == "connected"), peer["name"])

    def _table(self, peers: Sequence[Mapping[str, Any]], width: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
        table.add_column(
            "PEER",
            no_wrap=True,
            max_width=NAME_WIDTH if width >= MIDDLE else NARROW_NAME_WIDTH,
            overflow="ellipsis",
        )
        table.add_column("PATH", no_wrap=True, overflow="ellipsis")
        if width >= MIDDLE:
            table.add_column("RTT", no_wrap=True, justify="right")
        table.add_column("DOWN", no_wrap=True, justify="right")
        table.add_column("UP", no_wrap=True, justify="right")
        if width >= WIDE:
            table.add_column("IPV4", no_wrap=True)
            table.add_column("FOUND BY", no_wrap=True)
        for peer in peers:
            table.add_row(*self._cells(peer, width))
        return table

    def _cells(self, peer: Mapping[str, Any], width: int) -> list[Text]:
        rate = self._rates.get(peer["id"])
        down = up = NOTHING
        if rate is not None:
            down, up = (_per_second(way) if width >= MIDDLE else size(round(way)) for way in rate)
        cells = [Text(plain(peer["name"])), path_cell(peer)]
        if width >= MIDDLE:
            cells.append(Text(milliseconds(peer["rtt_ms"])))
        cells += [Text(down), Text(up)]
        if width >= WIDE:
            cells += [Text(plain(peer["ipv4"] or NOTHING)), Text(plain(peer.get("found_by") or NOTHING))]
        return cells


def path_cell(peer: Mapping[str, Any]) -> Text:
    """Direct, or whom it leads through, or that there is none."""
    if peer["path"] is None:
        return Text(plain(peer["state"]), style=STATE_STYLES.get(peer["state"], ""))
    relay = peer.get("relay")
    if relay is None:
        return Text(plain(peer["path"]), style=PATH_STYLES.get(peer["path"], ""))
    through = ", ".join(relay["members"]) if relay["kind"] == "member" else "volunteer"
    return Text(plain(f"via {through}"), style=PATH_STYLES["relayed"])


def _per_second(octets: float) -> str:
    return f"{size(round(octets))}/s"
