"""Tables for a person, at most 80 columns wide where the terminal is no wider."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dhtvpn.cli.output import plain

STATE_STYLES = {"connected": "green", "connecting": "yellow", "unreachable": "red"}
NOTHING = "-"
NAME_WIDTH = 20
MAX_DROPS_SHOWN = 4


def status(document: Mapping[str, Any]) -> RenderableType:
    """The whole status document: this node, its NAT, the DHT, then the peers."""
    network, node, nat, dht = (document[part] for part in ("network", "node", "nat", "dht"))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("Network", _text(f"{network['name']} ({network['id']}, {network['mode']})"))
    facts.add_row("Node", _text(f"{node['name']} ({node['id']})"))
    facts.add_row("Addresses", _text(f"{_or_dash(node['ipv4'])}  {_or_dash(node['ipv6'])}"))
    facts.add_row("Interface", _text(f"{_or_dash(node['interface'])}, UDP port {_or_dash(node['udp_port'])}"))
    seen_at = ", ".join(nat["public_endpoints"]) or "public endpoint not known"
    facts.add_row("NAT", _text(f"{nat['mapping']}; {seen_at}"))
    if mapping := document.get("port_mapping"):
        facts.add_row("Router", _text(_port_mapping(mapping)))
    facts.add_row(
        "DHT", _text(f"{several(dht['nodes'], 'node')}, record stored at {dht['records_published']}")
    )
    if sources := document.get("sources"):
        facts.add_row("Sources", _text(_sources(sources)))
    facts.add_row("Engine", _text(_engine(document["engine"])))
    facts.add_row("Up", _text(duration(document["uptime_s"])))
    if dropped := document.get("drops"):
        facts.add_row("Dropped", _text(_drops(dropped)))
    listing = document["peers"]
    view = peers(listing) if listing else Text("No other member seen yet.")
    return Group(facts, Text(), view)


def _port_mapping(mapping: Mapping[str, Any]) -> str:
    """What each router does for this node, or why none does anything."""
    if not mapping["gateways"]:
        return f"no port mapping: {mapping['detail']}"
    parts = []
    for gateway in mapping["gateways"]:
        if gateway["external"] is None:
            parts.append(f"{gateway['gateway']} maps no port ({gateway['detail']})")
        elif gateway["double_nat"] or not (gateway["published"] or gateway["external"].startswith("[")):
            parts.append(f"maps {gateway['external']} ({gateway['protocol']}), where nobody sees us")
        else:
            parts.append(f"maps {gateway['external']} ({gateway['protocol']})")
    return "; ".join(parts)


def peers(listing: Sequence[Mapping[str, Any]]) -> RenderableType:
    """One row for each peer."""
    table = _table()
    table.add_column("PEER", no_wrap=True, max_width=NAME_WIDTH, overflow="ellipsis")
    table.add_column("IPV4", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    table.add_column("PATH", no_wrap=True)
    table.add_column("RTT", no_wrap=True, justify="right")
    table.add_column("RECEIVED", no_wrap=True, justify="right")
    table.add_column("SENT", no_wrap=True, justify="right")
    for peer in listing:
        table.add_row(
            _text(peer["name"]),
            _text(_or_dash(peer["ipv4"])),
            _text(peer["state"], STATE_STYLES.get(peer["state"], "")),
            _text(_or_dash(peer["path"])),
            milliseconds(peer["rtt_ms"]),
            size(peer["rx_bytes"]),
            size(peer["tx_bytes"]),
        )
    return table


def path_of(item: Mapping[str, Any]) -> str:
    """How packets go to a peer: direct and where to, or relayed and through whom."""
    relay = item.get("relay")
    if relay is None:
        return f"{item['path']} by {_or_dash(item['endpoint'])}"
    return f"{item['path']} {through(relay)}"


def through(relay: Mapping[str, Any]) -> str:
    """Whom a relayed path leads through."""
    if relay["kind"] == "member":
        return f"through {', '.join(relay['members'])}"
    return f"through the volunteer at {_or_dash(relay['endpoint'])}"


def peer_details(listing: Sequence[Mapping[str, Any]]) -> RenderableType:
    """One block for each peer, with what does not fit into a row."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for number, peer in enumerate(listing):
        if number:
            grid.add_row()
        name = Text(plain(peer["name"]), style="bold")
        name.append(f"  {plain(peer['id'])}  ", style="dim")
        name.append(plain(peer["state"]), style=STATE_STYLES.get(peer["state"], ""))
        grid.add_row(_text(""), name)
        grid.add_row(_text("addresses"), _text(f"{_or_dash(peer['ipv4'])}  {_or_dash(peer['ipv6'])}"))
        if found_by := peer.get("found_by"):
            grid.add_row(_text("found by"), _text(found_by))
        if peer["path"] is not None:
            path = f"{path_of(peer)}, {milliseconds(peer['rtt_ms'])}"
            if peer["mtu"] is not None:
                path += f", MTU {peer['mtu']}"
            grid.add_row(_text("path"), _text(path))
        handshake = peer["last_handshake_s"]
        traffic = f"{size(peer['rx_bytes'])} received, {size(peer['tx_bytes'])} sent"
        if handshake is not None:
            traffic += f", last handshake {duration(handshake)} ago"
        grid.add_row(_text("traffic"), _text(traffic))
    return grid


def networks(rows: Iterable[Mapping[str, Any]]) -> RenderableType:
    """One row for each network that this machine knows."""
    table = _table()
    for column in ("NETWORK", "ID", "MODE", "IPV4", "STATE"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        running = f"running (pid {row['pid']})" if row["running"] else "stopped"
        table.add_row(
            _text(row["name"]),
            _text(row["id"]),
            _text(row["mode"]),
            _text(row["ipv4"]),
            _text(running, "green" if row["running"] else ""),
        )
    return table


def stock_peers(rows: Iterable[Mapping[str, Any]]) -> RenderableType:
    """One row for each plain WireGuard client."""
    table = _table()
    for column in ("STOCK PEER", "IPV4"):
        table.add_column(column, no_wrap=True, max_width=NAME_WIDTH)
    table.add_column("PUBLIC KEY", no_wrap=True)
    for row in rows:
        table.add_row(_text(row["name"]), _text(_or_dash(row["ipv4"])), _text(row["public_key"]))
    return table


def several(number: int, one: str, more: str = "") -> str:
    """How many of what: ``1 node``, ``2 nodes``. ``more``: the plural where it has no plain s."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def size(number: int) -> str:
    """Bytes with a decimal unit, at most 7 characters."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    left = int(seconds)
    for unit_s, unit, smaller_s, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if left >= unit_s:
            rest = left % unit_s // smaller_s
            return f"{left // unit_s} {unit} {rest} {smaller}"
    return f"{left} s"


def milliseconds(value: float | None) -> str:
    """A round trip time."""
    if value is None:
        return NOTHING
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))


def _drops(counts: Mapping[str, int]) -> str:
    largest = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {count}" for name, count in largest[:MAX_DROPS_SHOWN])
    return shown + (
        f", and {len(largest) - MAX_DROPS_SHOWN} more kinds" if len(largest) > MAX_DROPS_SHOWN else ""
    )


def _sources(sources: Sequence[Mapping[str, Any]]) -> str:
    """Those that are of use or have found anybody, each with what it says of itself."""
    shown = [source for source in sources if source["works"] or source["peers_found"]] or sources
    return "; ".join(f"{source['name']} ({source['detail']})" for source in shown)


def _engine(engine: Mapping[str, Any]) -> str:
    """Its offloads, and that it has died, where it has."""
    offloads = ", ".join(engine["offloads"])
    words = f"offloads: {offloads}" if offloads else "plain packets, no offloads"
    if restarts := engine["restarts"]:
        words += f"; ended unexpectedly {'once' if restarts == 1 else f'{restarts} times'}, started again"
    return words


def _text(value: object, style: str = "") -> Text:
    return Text(plain(value), style=style)


def _or_dash(value: object) -> str:
    return NOTHING if value is None else str(value)
