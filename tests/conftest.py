"""For every test: no unexpected ERROR in the log, nothing left behind, and hypothesis without a database."""

import logging
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

settings.register_profile(
    "dhtvpn", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("dhtvpn")
_home = tempfile.TemporaryDirectory(prefix="dhtvpn-hypothesis-")
set_hypothesis_home_dir(_home.name)


def pytest_configure() -> None:
    """A shell starts what goes to the background with SIGINT ignored, which every child inherits: then no
    test that interrupts one could pass."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _look_up_nothing(event: str, arguments: tuple[object, ...]) -> None:
    """No test finds the address of a public host, such as those where the BitTorrent DHT is entered: whatever
    is looked up in this process has no address. (Other processes of tests run in namespaces without a way
    out.)"""
    if event != "socket.getaddrinfo":
        return
    host = arguments[0]
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if not isinstance(name, str) or name in ("", "localhost"):
        return
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        raise socket.gaierror(socket.EAI_NONAME, f"tests look up no names: {name}") from None


sys.addaudithook(_look_up_nothing)


def pytest_unconfigure() -> None:
    """What hypothesis writes down goes with the run."""
    _home.cleanup()


@pytest.fixture(autouse=True)
def no_unexpected_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An ERROR in the log means a bug (docs/architecture.md), so it fails the test that caused it."""
    yield
    errors = [
        record
        for when in ("setup", "call")
        for record in caplog.get_records(when)
        if record.levelno >= logging.ERROR
    ]
    assert not errors, [record.getMessage() for record in errors]


def _interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


@pytest.fixture(scope="session", autouse=True)
def machine_untouched() -> Iterator[None]:
    """Tests work in namespaces of their own (whose fixtures check themselves): the machine's own
    network has the same interfaces after the run as before."""
    before = _interfaces()
    yield
    assert _interfaces() == before
