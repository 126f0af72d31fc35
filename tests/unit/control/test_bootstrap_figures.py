"""What a bootstrap node tells: every figure in both forms, and nothing else."""

import json

from dhtvpn.control.bootstrap_figures import as_json, as_prometheus

STATUS = {
    "version": "1",
    "listen": ["0.0.0.0:4690"],
    "uptime_s": 12.5,
    "nodes": 3,
    "rate": 2000.0,
    "busy": True,
    "memory": {"resident": 33_000_000, "caches_limit": 64_000_000},
    "stored": {
        "records": 5,
        "octets": 8000,
        "octets_limit": 44_000_000,
        "topics": 2,
        "prefixes": 4,
        "floors": 6,
        "subscriptions": 7,
        "subscriptions_limit": 9000,
    },
    "traffic": {
        "dht_received": 10,
        "dht_received_octets": 4000,
        "dht_sent": 9,
        "dht_sent_octets": 12_345_678_901,
        "stun_answered": 8,
    },
    "relay": {"on": True, "sources": 2, "ids": 4, "relayed": 7, "relayed_octets": 9000},
    "drops": {"dht.rate_limit": 11, "stun.rate": 1},
}


def test_json_is_the_document():
    kind, body = as_json(STATUS)
    assert kind == "application/json"
    assert json.loads(body) == STATUS


def test_prometheus_has_a_help_and_a_type_for_each():
    kind, body = as_prometheus(STATUS)
    assert kind.startswith("text/plain; version=0.0.4")
    lines = body.decode().splitlines()
    assert body.endswith(b"\n")
    names = [line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")]
    for name in names:
        assert name.startswith("dhtvpn_bootstrap_")
        assert sum(line.startswith(f"# TYPE {name} ") for line in lines) == 1
        assert sum(line.startswith(f"# HELP {name} ") for line in lines) == 1
    assert "dhtvpn_bootstrap_busy 1" in lines
    assert "dhtvpn_bootstrap_records 5" in lines
    assert "dhtvpn_bootstrap_dht_sent_bytes_total 12345678901" in lines
    assert 'dhtvpn_bootstrap_dropped_total{reason="dht.rate_limit"} 11' in lines
