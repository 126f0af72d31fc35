import importlib.util
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dhtvpn.control.server import ControlServer

FAKE_DAEMON = Path(__file__).parents[1] / "cli" / "fake_daemon.py"


def _load_fake() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_daemon_for_control", FAKE_DAEMON)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fake = _load_fake()


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A directory with a path short enough for a socket, whatever pytest calls its own."""
    with tempfile.TemporaryDirectory(prefix="dv", dir="/tmp") as directory:
        yield Path(directory) / "run"


@pytest.fixture
async def node() -> Any:
    return fake.FakeNode()


@pytest.fixture
async def server(node: Any, run_dir: Path) -> AsyncIterator[ControlServer]:
    serving = ControlServer(node, run_dir / "home.sock")
    await serving.start()
    yield serving
    await serving.close()
