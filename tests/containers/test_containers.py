"""Members in containers, behind routers in containers, talk."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers.engine import Engine, assemble_context, import_base, missing_tools

BASE = "dhtvpn-laboratory-base"
BOOTSTRAP, HOME_ROUTER = "198.18.250.10:4690", "198.18.250.2"

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A Docker engine with the base image, gone afterwards with all that it held."""
    if missing := missing_tools():
        pytest.skip(f"{', '.join(missing)} not installed: scripts/setup --containers installs them")
    started = Engine(Path(tempfile.mkdtemp(prefix="dvc", dir="/var/tmp")))
    try:
        if complaint := started.wait():
            pytest.skip(complaint)
        yield started
    finally:
        started.stop()


def test_members_behind_two_container_routers_talk(engine: Engine) -> None:
    import_base(engine, BASE, engine.directory)
    context = assemble_context(engine.directory)
    settings = {
        "BASE": BASE,
        "CONTEXT": str(context),
        "PIP_OPTIONS": "--no-index --find-links /source/wheels",
        "PACKAGE": "dhtvpn",
    }
    engine.compose("up", "--build", "--detach", **settings)
    try:
        network_id = engine.compose("exec", "-T", "laptop", "dhtvpn", "create", "lab").stdout.split()[0]
        for member in ("laptop", "phone"):
            words = ("dhtvpn", "join", network_id, "--name", member, "--bootstrap", BOOTSTRAP, "--detach")
            engine.compose("exec", "-T", member, *words)
        engine.compose("exec", "-T", "phone", "dhtvpn", "wait", "--peers", "1", "--timeout", "30")
        replies = engine.compose("exec", "-T", "phone", "dhtvpn", "ping", "--count", "2", "laptop").stdout
        assert f"direct by {HOME_ROUTER}:" in replies, "through the router, whose address is all that is seen"
    finally:
        engine.compose("down", "--volumes", check=False)
