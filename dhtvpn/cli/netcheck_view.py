"""What netcheck has found, for a person: facts, then what they mean and what to do."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dhtvpn.cli.output import plain
from dhtvpn.cli.views import milliseconds, several

MARKS = {"good": ("+", "green"), "note": ("-", ""), "problem": ("!", "red")}


def view(document: Mapping[str, Any]) -> RenderableType:
    """The whole document (netcheck.document.Document)."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    rows = {
        "UDP": document["udp"],
        "IPv4": _family(document["ipv4"]),
        "IPv6": _family(document["ipv6"]),
        "Router": _routers(document["port_mapping"]),
        "DHT": _dht(document["dht"]),
        "Clock": _clock(document["clock"]),
        "Machine": _machine(document["machine"]),
    }
    for name, value in rows.items():
        facts.add_row(name, Text(plain(value)))
    findings = Table.grid(padding=(0, 1))
    findings.add_column(no_wrap=True)
    findings.add_column(overflow="fold")
    for finding in document["findings"]:
        mark, style = MARKS[finding["level"]]
        findings.add_row(Text(mark, style=style), Text(plain(finding["text"])))
        if finding["advice"] is not None:
            findings.add_row("", Text(plain(f"do: {finding['advice']}"), style="dim"))
    return Group(facts, Text(), findings)


def _family(family: Mapping[str, Any]) -> str:
    here = ", ".join(family["addresses"])
    if family["udp"] != "works":
        return "; ".join([family["udp"], *([f"here {here}"] if here else [])])
    parts = [
        f"works, {family['answered']} of {family['asked']} nodes answer, {milliseconds(family['rtt_ms'])}",
        f"seen as {', '.join(family['public_endpoints'])}",
        f"here {here}" if here else "",
        f"NAT: mapping {family['mapping']}, filtering {family['filtering']}",
        {True: "ports in order", False: "ports by chance", None: ""}[family["ports_in_order"]],
        {True: "hairpinning", False: "no hairpinning", None: ""}[family["hairpinning"]],
        f"path MTU {family['path_mtu']}" if family["path_mtu"] is not None else "",
    ]
    return "; ".join(part for part in parts if part)


def _routers(mapping: Mapping[str, Any]) -> str:
    if not mapping["tested"]:
        return "not asked"
    if not mapping["routers"]:
        return "none that translates"
    parts = []
    for router in mapping["routers"]:
        if router["external"] is not None:
            what = f"forwards {router['external']} when asked ({router['protocol']})"
        elif router["offered"]:
            what = f"speaks {', '.join(router['offered'])}, forwards nothing ({router['detail']})"
        else:
            what = "offers no port mapping"
        parts.append(f"{router['gateway']} {what}")
    return "; ".join(parts)


def _dht(dht: Mapping[str, Any]) -> str:
    if not dht["known"]:
        return "no node known"
    nodes = f"{several(dht['nodes'], 'node')} found by {dht['known']} known"
    return nodes if dht["lookup_ms"] is None else f"{nodes}, a lookup takes {milliseconds(dht['lookup_ms'])}"


def _clock(clock: Mapping[str, Any]) -> str:
    if clock["offset_s"] is None:
        return "not compared"
    return f"{'right' if clock['right'] else 'wrong'}, {-clock['offset_s']:+.1f} s against other nodes"


def _machine(machine: Mapping[str, Any]) -> str:
    tun = "TUN device" if machine["tun_device"] else "no TUN device"
    rights = "may make interfaces" if machine["net_admin"] else "may make no interface (not root)"
    return f"{tun}, {rights}; on the LAN by {', '.join(machine['lan_interfaces']) or 'no interface'}"
