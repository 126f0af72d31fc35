"""When an engine ends, another one is started: at once, then after pauses, until there can be none."""

import asyncio
from ipaddress import IPv4Address, IPv6Address
from types import SimpleNamespace
from typing import Any

import pytest
from virtual_time import run

from dhtvpn.errors import SystemRefusedError
from dhtvpn.membership.network_id import create
from dhtvpn.networks import Cipher
from dhtvpn.node import local_end
from dhtvpn.node.local_end import RESTART_PAUSES_S, STEADY_S, LocalEnd


class Bench:
    """A local end whose engines are made up. It is its own listener."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(local_end.EngineProcess, "start", self._start)
        self.started: list[float] = []
        self.told: list[str] = []
        self.refusals = 0
        self.starter = SimpleNamespace(alive=True)
        self.end = LocalEnd(
            tun=SimpleNamespace(fd=-1),  # type: ignore[arg-type]
            port=SimpleNamespace(engine_sockets=[], on_data=lambda handler: None),  # type: ignore[arg-type]
            starter=self.starter,  # type: ignore[arg-type]
            network_id=create(bytes)[0],
            ipv4=IPv4Address("10.0.0.1"),
            ipv6=IPv6Address("fd00::1"),
            cipher=Cipher.AUTO,
        )
        self.end.listener = self

    async def _start(self, *arguments: Any, **options: Any) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise SystemRefusedError("no")
        self.started.append(asyncio.get_running_loop().time())
        return SimpleNamespace(datagram=None)

    def engine_event(self, event: object) -> None:
        raise AssertionError

    def engine_ended(self, code: int, pause_s: float) -> None:
        self.told.append(f"ended {code} {pause_s:g}")

    def engine_replaced(self, engine: object) -> None:
        assert engine is self.end.engine
        self.told.append("replaced")

    def engine_lost(self, error: SystemRefusedError) -> None:
        self.told.append("lost")

    async def crash(self) -> None:
        self.end._engine_died(-9)
        assert self.end._restart is not None
        await self.end._restart


def test_pauses_grow_while_it_crashes_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        bench = Bench(monkeypatch)
        await bench.end._start_engine()
        await asyncio.sleep(STEADY_S)
        for _ in range(8):
            await bench.crash()
        pauses = [b - a for a, b in zip(bench.started, bench.started[1:], strict=False)]
        assert pauses == pytest.approx([STEADY_S, *RESTART_PAUSES_S[1:], 30.0, 30.0], abs=0.01)
        assert bench.told[:4] == ["ended -9 0", "replaced", "ended -9 0.5", "replaced"]
        await asyncio.sleep(STEADY_S)
        await bench.crash()
        assert bench.started[-1] - bench.started[-2] == pytest.approx(STEADY_S, abs=0.01)

    run(test())


def test_it_is_tried_again_until_it_starts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        bench = Bench(monkeypatch)
        bench.refusals = 3
        began = asyncio.get_running_loop().time()
        await bench.crash()
        assert bench.told == ["ended -9 0", "replaced"]
        assert bench.started[0] - began == pytest.approx(3 * RESTART_PAUSES_S[-1], abs=0.01)

    with caplog.at_level("CRITICAL", "dhtvpn.node.local_end"):
        run(test())


def test_without_the_process_that_engines_come_from_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        bench = Bench(monkeypatch)
        bench.refusals, bench.starter.alive = 1, False
        await bench.crash()
        assert bench.told == ["ended -9 0", "lost"] and bench.started == []

    run(test())
