"""A process of its own is confined, and then tries what an attacker in it would try. Needs root."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dhtvpn.confinement import kernel, landlock

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give it up")

SOMEBODY = 54321  # no user of this machine: a number is all that the kernel needs
ATTEMPTS = """
import ctypes, json, os, signal, socket, subprocess, sys, threading
from pathlib import Path
from dhtvpn.confinement import kernel, landlock
from dhtvpn.confinement.account import Account, give
from dhtvpn.confinement.process import confine

user, own, outside, parent = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
give(own, user)
libc = ctypes.CDLL(None, use_errno=True)
held = socket.socketpair()
done = confine(Account(user, user) if user else None, (kernel.CAP_NET_ADMIN,), [(own, landlock.KEEP)])

def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "refused")

def replace():
    (own / ".new").write_text("new")
    (own / ".new").replace(own / "state")

def run_thread():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()

attempts = {
    "read state": lambda: (own / "state").read_text(),
    "replace state": replace,
    "remove state": lambda: (own / "old").unlink(),
    "use what was open": lambda: held[0].send(b"x"),
    "set capability": lambda: kernel.keep_only(kernel.CAP_NET_ADMIN),
    "shadow": lambda: Path("/etc/shadow").read_bytes(),
    "passwd": lambda: Path("/etc/passwd").read_bytes(),
    "list /": lambda: os.listdir("/"),
    "write outside": lambda: outside.write_text("x"),
    "append outside": lambda: os.open(outside, os.O_WRONLY | os.O_APPEND),
    "link": lambda: (own / "link").symlink_to("/etc/shadow"),
    "hard link": lambda: os.link(outside, own / "hard"),
    "directory": lambda: (own / "directory").mkdir(),
    "device": lambda: os.mknod(own / "device", 0o020600, os.makedev(1, 1)),
    "Unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
    "pair of datagram sockets": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "pair of sockets": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
    "namespace": lambda: check(libc.unshare(0x10000000)),
    "child": lambda: os._exit(0) if (child := os.fork()) == 0 else os.waitpid(child, 0),
    "thread": run_thread,
    "run a program": lambda: subprocess.run(["/bin/true"], check=True),
    "signal": lambda: os.kill(parent, signal.SIGWINCH),
    "trace": lambda: check(libc.ptrace(16, parent, 0, 0)),
    "mount": lambda: check(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
    "chroot": lambda: os.chroot(own),
    "become root": lambda: os.setresuid(0, 0, 0) if user else os.setresuid(1, 1, 1),
    "groups": lambda: os.setgroups([0]),
    "gain capability": lambda: kernel.keep_only(12, 21) or check(not kernel.permitted() >> 21),
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
    "low port": lambda: socket.create_server(("127.0.0.1", 81)).close(),
    "listen": lambda: socket.create_server(("127.0.0.1", 0)).close(),
}
results = {}
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError as error:
        results[name] = error.errno or True
    else:
        results[name] = 0
fields = {"user": done.user, "capabilities": done.capabilities, "not_dropped": done.not_dropped}
os.write(1, json.dumps({"results": results, **fields}).encode())
"""
WORKS = {
    "read state",
    "replace state",
    "remove state",
    "use what was open",
    "set capability",
    "pair of sockets",
    "child",
    "thread",
}


@pytest.fixture(scope="module", params=[0, SOMEBODY], ids=["stays root", "becomes another user"])
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("confined")
    own, outside = directory / "own", directory / "outside"
    own.mkdir(mode=0o700)
    for parent in (directory, directory.parent, directory.parent.parent):
        parent.chmod(0o711)
    for path in (own / "state", own / "old", outside):
        path.write_text("text")
    command = [sys.executable, "-c", ATTEMPTS, *map(str, (request.param, own, outside, os.getpid()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    assert outside.read_text() == "text"
    assert (own / "state").read_text() == "new"
    tried: dict[str, Any] = json.loads(done.stdout) | {"wanted": request.param}
    return tried


def test_what_it_needs_works(tried: dict[str, Any]) -> None:
    assert {name: code for name, code in tried["results"].items() if name in WORKS and code} == {}


def test_everything_else_is_refused(tried: dict[str, Any]) -> None:
    if landlock.version() < 6:
        pytest.skip("this kernel's Landlock is older than signals and TCP ports")
    assert [name for name, code in tried["results"].items() if name not in WORKS and not code] == []


def test_it_says_what_it_is(tried: dict[str, Any]) -> None:
    assert tried["user"] == tried["wanted"]
    assert tried["capabilities"] == ["net_admin"]
    assert tried["not_dropped"] == ([] if tried["wanted"] else ["root"])


def test_permitted_capabilities_are_those_of_proc() -> None:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "CapPrm" in line)
    assert kernel.permitted() == int(line.split()[1], 16)


def test_an_unprivileged_user_has_nothing_to_complain_of() -> None:
    program = (
        "from dhtvpn.confinement.process import confine\n"
        "from dhtvpn.confinement.account import take_over\n"
        "import os, socket\n"
        "os.setresuid(54321, 54321, 54321)\n"
        "assert take_over([]) is None\n"
        "done = confine(None, (), [])\n"
        "assert (done.user, done.capabilities, done.not_dropped) == (54321, (), ()), done\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("ports", ["()", "(0,)"])
def test_a_free_port_may_be_bound_where_that_is_needed(ports: str) -> None:
    """libtorrent does. One with a number may not."""
    if landlock.version() < 4:
        pytest.skip("this kernel's Landlock is older than TCP ports")
    program = (
        "from dhtvpn.confinement.process import confine\n"
        "import socket, sys\n"
        f"confine(None, (), [], tcp_ports={ports})\n"
        "def bound(port):\n"
        "    with socket.socket() as tcp:\n"
        "        try:\n"
        "            tcp.bind(('127.0.0.1', port))\n"
        "        except PermissionError:\n"
        "            return False\n"
        "        return True\n"
        "sys.stdout.write(f'{bound(0)} {bound(40123)}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{ports == '(0,)'} False", "")
