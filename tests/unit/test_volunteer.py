"""The volunteer's node as a process: no library of the data plane, no address in its log, status, metrics."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dhtvpn.discovery.wire import Flags, Request, Rpc, encode_request
from dhtvpn.nat.demux import DHT_PREFIX_BYTES
from dhtvpn.volunteer import PROGRAM_OCTETS

NOT_NEEDED = [
    "aioice",
    "aiohttp",
    "pyroute2",
    "pytun_pmd3",
    "pytun",
    "cryptography",
    "rich",
    "pydantic",
    "dns",
    "numpy",
]
COMPILED = {"nacl", "_sodium", "_cffi_backend", "cbor2"}
"""Modules of other projects that may hold compiled code: PyNaCl, its cffi, cbor2 (bootstrap/README.md)."""

DEADLINE_S = 20.0


def test_it_loads_only_what_it_needs():
    code = (
        "import sys, json, dhtvpn.volunteer\n"
        "files = {n: getattr(m, '__file__', None) or '' for n, m in sys.modules.items()}\n"
        "print(json.dumps(files))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    files = json.loads(done.stdout)
    assert not set(NOT_NEEDED) & set(files)
    compiled = {
        n.partition(".")[0] for n, file in files.items() if file.endswith(".so") and "-packages" in file
    }
    assert compiled <= COMPILED


def free_ports() -> tuple[int, int]:
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
        udp.bind(("127.0.0.1", 0))
        tcp.bind(("127.0.0.1", 0))
        return udp.getsockname()[1], tcp.getsockname()[1]


def command(state: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "dhtvpn", "--state-dir", str(state), "bootstrap", *arguments]


@contextmanager
def running(state: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The node, from its first line on until SIGTERM."""
    node = subprocess.Popen(
        command(state, *arguments, "-vv"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert node.stdout is not None
        for line in node.stdout:
            if "bootstrap node on" in line:
                break
        else:
            pytest.fail("it did not start")
        yield node
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(DEADLINE_S)
        node.stdout.close()


def status(state: Path, listen: str) -> dict[str, Any]:
    done = subprocess.run(
        command(state, "--listen", listen, "--status", "--json"),
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def data_limit(pid: int) -> list[str]:
    """RLIMIT_DATA of a process, soft and hard, as proc(5) has it."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max data size")]
    return line.split()[3:5]


def test_status_metrics_log_and_what_stays_on_disk(tmp_path):
    udp, tcp = free_ports()
    listen, folder = f"127.0.0.1:{udp}", tmp_path / "bootstrap" / str(udp)
    with running(tmp_path, "--listen", listen, "--metrics", f"127.0.0.1:{tcp}", "--memory", "8") as node:
        with socket.socket(type=socket.SOCK_DGRAM) as asker:
            asker.settimeout(DEADLINE_S)
            request = encode_request(bytes(20), Request(Rpc.PING, b"Q" * 20, flags=Flags.READ_ONLY))
            asker.sendto(DHT_PREFIX_BYTES + request, ("127.0.0.1", udp))
            assert asker.recv(2000)[:1] == DHT_PREFIX_BYTES
        found = status(tmp_path, listen)
        assert found["listen"] == [listen]
        assert found["traffic"]["dht_received"] == found["traffic"]["dht_sent"] == 1
        assert found["memory"]["caches_limit"] == 8_000_000
        assert data_limit(node.pid) == [str(8_000_000 + PROGRAM_OCTETS)] * 2
        assert 10 << 20 < found["memory"]["resident"] < 100 << 20
        with urllib.request.urlopen(f"http://127.0.0.1:{tcp}/metrics", timeout=DEADLINE_S) as answer:
            metrics = answer.read().decode()
        assert "dhtvpn_bootstrap_dht_received_total 1" in metrics
        again = subprocess.run(
            command(tmp_path, "--listen", listen),
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
        assert again.returncode == 1
        assert (folder / "status.sock").stat().st_mode & 0o007 == 0
        node.send_signal(signal.SIGTERM)
        said = node.stdout.read()
    assert node.returncode == 0
    assert not re.search(r"\d+\.\d+\.\d+\.\d+", said), said
    assert sorted(path.name for path in folder.iterdir()) == [
        "contacts.json",
        "floors",
        "node_ids.json",
        "tokens.json",
    ]
    gone = subprocess.run(
        command(tmp_path, "--listen", listen, "--status"),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (gone.returncode, "not running" in gone.stderr) == (3, True)


@pytest.mark.parametrize("address", ["0.0.0.0:9469", "192.0.2.1:9469", "[::]:9469", "localhost:9469"])
def test_metrics_are_for_this_machine_only(tmp_path, address):
    done = subprocess.run(
        command(tmp_path, "--metrics", address),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 2
    assert "must be a loopback address" in done.stderr
