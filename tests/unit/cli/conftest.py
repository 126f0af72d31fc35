import asyncio
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dhtvpn.cli.main import app
from dhtvpn.control.server import ControlServer

FAKE_DAEMON = Path(__file__).with_name("fake_daemon.py")


def _load_fake() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_daemon_for_cli", FAKE_DAEMON)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fake = _load_fake()


@pytest.fixture
def fake_daemon() -> ModuleType:
    return fake


@pytest.fixture
def state_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory with a path short enough for sockets; nothing comes from the environment."""
    for name in ("DHTVPN_STATE_DIR", "DHTVPN_DEBUG", "DHTVPN_READY_FD"):
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory(prefix="dv", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def cli(state_dir: Path) -> Callable[..., Result]:
    """Run the command line in this process against the test's state directory."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, ["--state-dir", str(state_dir), *arguments], input=stdin)

    return run


@dataclass
class RunningNode:
    """A made-up node that serves its API from a thread of its own."""

    node: Any
    loop: asyncio.AbstractEventLoop

    def soon(self, change: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(change)


@pytest.fixture
def start_node(state_dir: Path) -> Iterator[Callable[[str], RunningNode]]:
    """Starts made-up nodes by network name, and stops them at the end."""
    stops: list[Callable[[], None]] = []

    def start(name: str) -> RunningNode:
        ready = threading.Event()
        running: list[RunningNode] = []

        async def serve() -> None:
            node = fake.FakeNode(name)
            server = ControlServer(node, state_dir / "run" / f"{name}.sock")
            await server.start()
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            running.append(RunningNode(node, loop))
            stops.append(lambda: loop.call_soon_threadsafe(stop.set) and None)
            ready.set()
            await stop.wait()
            await server.close()

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        assert ready.wait(10)
        stops.append(thread.join)
        return running[0]

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def injected(tmp_path: Path, state_dir: Path) -> dict[str, str]:
    """An environment in which ``dhtvpn`` as a process of its own runs the made-up daemon."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, importlib.util, sys\n"
        "class Fake(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'dhtvpn.daemon':\n"
        f"            return importlib.util.spec_from_file_location(name, {str(FAKE_DAEMON)!r})\n"
        "sys.meta_path.insert(0, Fake())\n"
    )
    return {**os.environ, "PYTHONPATH": str(tmp_path), "DHTVPN_STATE_DIR": str(state_dir)}
