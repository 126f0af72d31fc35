"""The status of a volunteer's node, for a person."""

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dhtvpn.cli.output import plain
from dhtvpn.cli.views import duration, several, size

MAX_DROPS_SHOWN = 6


def status(document: Mapping[str, Any]) -> RenderableType:
    """The whole document (control.bootstrap_figures.BootstrapStatus)."""
    stored, traffic, memory = document["stored"], document["traffic"], document["memory"]
    busy = ", busy: only quiet prefixes are served" if document["busy"] else ""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    rows = {
        "Listens on": ", ".join(document["listen"]),
        "Up": duration(document["uptime_s"]),
        "DHT": f"{several(document['nodes'], 'node')} known, "
        f"at most {document['rate']:.0f} answers a second{busy}",
        "Stored": f"{several(stored['records'], 'record')} of {several(stored['topics'], 'topic')} "
        f"from {several(stored['prefixes'], 'prefix', 'prefixes')}, "
        f"{size(stored['octets'])} of {size(stored['octets_limit'])}",
        "Watched": f"{stored['subscriptions']} of {stored['subscriptions_limit']} subscriptions",
        "Memory": f"{size(memory['resident'])}, caches up to {size(memory['caches_limit'])}",
        "Received": f"{several(traffic['dht_received'], 'DHT datagram')}, "
        f"{size(traffic['dht_received_octets'])}",
        "Sent": f"{several(traffic['dht_sent'], 'DHT datagram')}, {size(traffic['dht_sent_octets'])}; "
        f"{several(traffic['stun_answered'], 'STUN answer')}",
    }
    relay = document["relay"]
    if relay["on"]:
        rows["Relayed"] = (
            f"{several(relay['relayed'], 'datagram')}, {size(relay['relayed_octets'])}; "
            f"{several(relay['sources'], 'address', 'addresses')} now"
        )
    if document["drops"]:
        largest = sorted(document["drops"].items(), key=lambda item: -item[1])[:MAX_DROPS_SHOWN]
        rows["Dropped"] = ", ".join(f"{name} {count}" for name, count in largest)
    for name, value in rows.items():
        facts.add_row(name, Text(plain(value)))
    return facts
