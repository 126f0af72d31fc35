"""A real engine process: a socket pair stands in for its device, loopback for the network."""

import asyncio
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest
from engines_in_memory import INDEX_A, INDEX_B, KEY_A, KEY_B, ipv4

from dhtvpn.dataplane import process, starter
from dhtvpn.dataplane.__main__ import parse_arguments
from dhtvpn.dataplane.messages import OFFLOADS, Activity, ControlFrame, DropCounts, Event, KeypairConfirmed
from dhtvpn.dataplane.process import EngineProcess
from dhtvpn.dataplane.sockets import prepare
from dhtvpn.dataplane.starter import EngineStarter
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError, UsageError
from dhtvpn.wireguard.keypair import Keypair
from dhtvpn.wireguard.transport import PeerTransport

A4, B4 = "10.1.0.1", "10.1.0.2"


class Running:
    """An engine, the host behind its device, and a peer on loopback that seals and opens by itself."""

    def __init__(self) -> None:
        self.host, self.device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.1", 0))
        for sock in (self.host, self.peer):
            sock.setblocking(False)
        self.transport = PeerTransport(1420)
        self.events: list[Event] = []
        self.exits: list[int] = []
        self.arrived = asyncio.Event()
        self.starter: EngineStarter | None = None
        self.engine: EngineProcess

    def take(self, event: Event) -> None:
        self.events.append(event)
        self.arrived.set()

    def exited(self, code: int) -> None:
        self.exits.append(code)
        self.arrived.set()

    async def start(self) -> None:
        device, sockets = self.device.fileno(), [self.udp]
        self.starter = self.starter or EngineStarter(device, sockets, receive=True)
        self.engine = await EngineProcess.start(
            *(device, sockets, [IPv4Address(A4)], 1420, self.take, self.exited), starter=self.starter
        )

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.arrived.clear()
                await self.arrived.wait()

    def introduce(self) -> None:
        self.engine.set_peer(1, [ip_network(B4)], Endpoint(*self.peer.getsockname()))
        now = time.monotonic()
        self.engine.install_keypair(1, Keypair(INDEX_A, INDEX_B, KEY_A, KEY_B, True, now))
        self.transport.install(Keypair(INDEX_B, INDEX_A, KEY_B, KEY_A, True, now))

    async def from_engine(self) -> bytes:
        async with asyncio.timeout(10):
            data = await asyncio.get_running_loop().sock_recv(self.peer, 2000)
        return self.transport.open(data, time.monotonic())

    def to_engine(self, plaintext: bytes) -> None:
        datagram = self.transport.seal(plaintext, time.monotonic())
        assert datagram is not None
        self.peer.sendto(datagram, self.udp.getsockname())


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    await made.start()
    yield made
    await made.engine.close()
    assert made.starter is not None
    await made.starter.close()
    for sock in (made.host, made.device, made.udp, made.peer):
        sock.close()
    assert not alive(made.engine.pid)


def alive(pid: int) -> bool:
    """Whether it still runs; one that only waits to be collected by init does not."""
    try:
        return proc(pid, "stat").rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def proc(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


async def test_packets_go_through_in_both_directions(running: Running) -> None:
    running.introduce()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(running.host, ipv4(A4, B4, b"out"))
    assert (await running.from_engine())[:23] == ipv4(A4, B4, b"out")
    running.to_engine(ipv4(B4, A4, b"in"))
    async with asyncio.timeout(10):
        assert await loop.sock_recv(running.host, 2000) == ipv4(B4, A4, b"in")
    running.to_engine(b"\x01frame")
    await running.until(lambda: [e for e in running.events if isinstance(e, ControlFrame)])
    running.engine.send(1, b"\x02answer")
    assert (await running.from_engine()).rstrip(b"\0") == b"\x02answer"
    running.to_engine(ipv4("10.9.9.9", A4))
    await running.until(lambda: [e for e in running.events if isinstance(e, DropCounts)])
    assert DropCounts({"dataplane.source_not_allowed": 1}) in running.events
    await running.until(lambda: [e for e in running.events if isinstance(e, Activity) and e.sent])


async def test_it_tells_which_offloads_are_on(running: Running) -> None:
    assert set(running.engine.offloads) <= set(OFFLOADS)
    assert ("udp_segment" in running.engine.offloads) is prepare(running.udp, receive=True)
    assert "kernel_demux" in running.engine.offloads


async def test_a_responders_keypair_is_confirmed(running: Running) -> None:
    running.introduce()
    now = time.monotonic()
    running.engine.install_keypair(1, Keypair(31, 41, KEY_A, KEY_B, False, now))
    running.transport.install(Keypair(41, 31, KEY_B, KEY_A, True, now))
    running.engine.send(1, b"\x01")  # sealed with the first keypair; commands keep their order
    await running.from_engine()
    running.to_engine(b"")
    await running.until(lambda: KeypairConfirmed(1, 31) in running.events)


async def test_it_gives_up_its_privileges(running: Running) -> None:
    # this one can be read although the process is not dumpable
    fields = dict(line.split(":", 1) for line in proc(running.engine.pid, "status").decode().splitlines())
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    if os.geteuid() == 0:
        assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {"65534"}


async def test_keys_are_neither_in_the_arguments_nor_in_the_environment(running: Running) -> None:
    running.introduce()
    command = proc(running.engine.pid, "cmdline")
    assert b"--control-fd" in command and KEY_A not in command
    if os.geteuid() == 0:
        environment = proc(running.engine.pid, "environ")
        assert {entry.split(b"=")[0].decode() for entry in environment.split(b"\0") if entry} <= set(
            starter._ENVIRONMENT
        )


async def test_its_death_is_told_once_and_commands_go_nowhere(running: Running) -> None:
    os.kill(running.engine.pid, signal.SIGKILL)
    await running.until(lambda: running.exits)
    assert running.exits == [-signal.SIGKILL]
    running.engine.remove_peer(1)
    await running.engine.close()
    assert running.exits == [-signal.SIGKILL]


async def test_another_engine_can_take_over(running: Running) -> None:
    os.kill(running.engine.pid, signal.SIGKILL)
    await running.until(lambda: running.exits)
    await running.start()
    running.introduce()
    await asyncio.get_running_loop().sock_sendall(running.host, ipv4(A4, B4, b"again"))
    assert (await running.from_engine())[:25] == ipv4(A4, B4, b"again")


async def test_without_the_process_that_starts_them_there_is_no_engine(running: Running) -> None:
    assert running.starter is not None
    watch = os.pidfd_open(running.engine.pid)
    os.kill(running.starter.pid, signal.SIGKILL)
    assert select.select([watch], [], [], 10)[0]
    os.close(watch)
    await running.until(lambda: running.exits)
    assert running.exits == [-signal.SIGKILL] and not running.starter.alive
    with pytest.raises(SystemRefusedError, match="ended at once"):
        await running.start()


async def test_a_stopped_engine_is_ended_by_close(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "END_TIMEOUT_S", 0.1)
    os.kill(running.engine.pid, signal.SIGSTOP)
    await running.engine.close()
    assert not alive(running.engine.pid)
    assert running.exits == []  # it was meant to end


async def test_an_engine_that_does_not_read_is_ended(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "MAX_WAITING_COMMANDS", 10)
    os.kill(running.engine.pid, signal.SIGSTOP)
    with caplog.at_level(logging.CRITICAL, "dhtvpn.dataplane.process"):
        for _ in range(100_000):
            running.engine.send(1, bytes(16000))
            if running.engine._channel.fileno() < 0:
                break
    await running.until(lambda: running.exits)
    assert running.exits == [-signal.SIGKILL]


async def test_commands_wait_for_a_slow_engine_in_order(running: Running) -> None:
    running.introduce()
    os.kill(running.engine.pid, signal.SIGSTOP)
    for n in range(300):
        running.engine.send(2, bytes(9000))  # nobody: only counted
        if n % 100 == 99:
            running.engine.send(1, bytes([n // 100 + 1]))
    assert running.engine._waiting
    os.kill(running.engine.pid, signal.SIGCONT)
    for mark in (1, 2, 3):
        assert (await running.from_engine())[0] == mark
    await running.until(lambda: DropCounts({"dataplane.unknown_peer": 300}) in running.events)


async def test_an_engine_that_cannot_start_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(starter.sys, "executable", "/no/such/python")
    with pytest.raises(SystemRefusedError, match="cannot start the engine"):
        await EngineProcess.start(0, [], [], 1420, lambda event: None)
    monkeypatch.setattr(starter.sys, "executable", "/bin/false")
    with (
        caplog.at_level(logging.CRITICAL, "dhtvpn.dataplane.process"),
        pytest.raises(SystemRefusedError, match="ended at once"),
    ):
        await EngineProcess.start(0, [], [], 1420, lambda event: None)


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """kill -9 of the control process: the engine goes, although another process holds the channel too."""
    script = tmp_path / "control.py"
    script.write_text(
        "import asyncio, os, socket\n"
        "from dhtvpn.dataplane.process import EngineProcess\n"
        "async def main():\n"
        "    host, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "    engine = await EngineProcess.start(device.fileno(), [], [], 1420, print)\n"
        "    print(engine.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as control:
        assert control.stdout is not None
        pid = int(control.stdout.readline())
        watch = os.pidfd_open(pid)
        control.kill()
        assert select.select([watch], [], [], 10)[0]
        os.close(watch)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--tun-fd", "3"], ["--control-fd"], ["--control-fd", "x", "--tun-fd", "3"], ["--what", "1"]],
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_arguments(arguments)


def test_arguments() -> None:
    arguments = ["--control-fd", "3", "--tun-fd", "4", "--send-only", "--udp6-fd", "5", "--udp6-fd", "6"]
    assert parse_arguments(arguments) == {"--control-fd": [3], "--tun-fd": [4], "--udp6-fd": [5, 6]}
