"""What a volunteer's node tells its owner: one status document, and the same figures for Prometheus.

Counts and sizes only: no address of anybody, no key, no topic. Pure.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypedDict


class Memory(TypedDict):
    """Octets: what the process has, and what its caches may take of it."""

    resident: int
    caches_limit: int


class Stored(TypedDict):
    """The storing side. ``octets`` is counted with bookkeeping; ``prefixes``: IPv4 /24 and IPv6 /48 that
    store here; ``floors``: slots that are remembered without their envelope."""

    records: int
    octets: int
    octets_limit: int
    topics: int
    prefixes: int
    floors: int
    subscriptions: int
    subscriptions_limit: int


class Traffic(TypedDict):
    """Since the start; octets of UDP payload."""

    dht_received: int
    dht_received_octets: int
    dht_sent: int
    dht_sent_octets: int
    stun_answered: int


class Relay(TypedDict):
    """``sources``: addresses that may send through it; ``ids``: names that members are reached by. Relayed
    since the start: datagrams, octets of UDP payload."""

    on: bool
    sources: int
    ids: int
    relayed: int
    relayed_octets: int


class BootstrapStatus(TypedDict):
    """The whole document. ``busy``: more is asked than ``rate`` allows; only quiet prefixes are served."""

    version: str
    listen: list[str]
    uptime_s: float
    nodes: int
    rate: float
    busy: bool
    memory: Memory
    stored: Stored
    traffic: Traffic
    relay: Relay
    drops: dict[str, int]


_PREFIX: Final = "dhtvpn_bootstrap_"
_METRICS: Final = (  # name, type, what it says, where it stands
    ("uptime_seconds", "gauge", "Seconds since the start.", ("uptime_s",)),
    ("nodes", "gauge", "Nodes in the routing table that answer.", ("nodes",)),
    ("busy", "gauge", "1 while more is asked than the rate allows.", ("busy",)),
    ("resident_bytes", "gauge", "Memory of the process.", ("memory", "resident")),
    ("records", "gauge", "Sealed records stored.", ("stored", "records")),
    ("stored_bytes", "gauge", "Memory that they are counted as.", ("stored", "octets")),
    ("stored_bytes_limit", "gauge", "Most that they may be counted as.", ("stored", "octets_limit")),
    ("topics", "gauge", "Topics with a record.", ("stored", "topics")),
    ("storing_prefixes", "gauge", "IPv4 /24 and IPv6 /48 that store here.", ("stored", "prefixes")),
    ("floors", "gauge", "Slots remembered without their record.", ("stored", "floors")),
    ("subscriptions", "gauge", "Watches that get changes pushed.", ("stored", "subscriptions")),
    ("dht_received_total", "counter", "DHT datagrams read.", ("traffic", "dht_received")),
    ("dht_received_bytes_total", "counter", "Their UDP payload.", ("traffic", "dht_received_octets")),
    ("dht_sent_total", "counter", "DHT datagrams sent.", ("traffic", "dht_sent")),
    ("dht_sent_bytes_total", "counter", "Their UDP payload.", ("traffic", "dht_sent_octets")),
    ("stun_answered_total", "counter", "STUN requests answered.", ("traffic", "stun_answered")),
    ("relay_sources", "gauge", "Addresses registered at the relay.", ("relay", "sources")),
    ("relayed_total", "counter", "Datagrams relayed.", ("relay", "relayed")),
    ("relayed_bytes_total", "counter", "Their UDP payload.", ("relay", "relayed_octets")),
)


def status_socket(state_dir: Path) -> Path:
    """Where the node that keeps its state in ``state_dir`` answers ``GET /v1/status``."""
    return state_dir / "status.sock"


def as_json(status: BootstrapStatus) -> tuple[str, bytes]:
    """Content type and body."""
    return "application/json", json.dumps(status).encode()


def as_prometheus(status: BootstrapStatus) -> tuple[str, bytes]:
    """Content type and body: Prometheus' text format, version 0.0.4."""
    return "text/plain; version=0.0.4; charset=utf-8", ("\n".join(_lines(status)) + "\n").encode()


def _lines(status: BootstrapStatus) -> Iterator[str]:
    for name, kind, text, path in _METRICS:
        value: Any = status
        for step in path:
            value = value[step]
        yield from (f"# HELP {_PREFIX}{name} {text}", f"# TYPE {_PREFIX}{name} {kind}")
        yield f"{_PREFIX}{name} {float(value):.15g}"
    yield from _dropped(status["drops"])


def _dropped(drops: Mapping[str, int]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}dropped_total Datagrams and records dropped, by reason."
    yield f"# TYPE {_PREFIX}dropped_total counter"
    for reason, count in sorted(drops.items()):
        yield f'{_PREFIX}dropped_total{{reason="{reason}"}} {count}'
