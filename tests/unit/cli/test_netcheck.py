"""``dhtvpn netcheck``: what is asked, what is printed, how it ends."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import Result

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.nat.filtering import Filtering
from dhtvpn.nat.reflexive import Mapping
from dhtvpn.netcheck import run
from dhtvpn.netcheck.report import Directory, Family, Machine, Outside, Report, Router
from dhtvpn.netcheck.run import NetcheckConfig

Cli = Callable[..., Result]

SEEN = Endpoint("198.51.100.7", 50000)
HOME = Report(
    ipv4=Family(
        ("192.168.1.10",),
        True,
        Outside(3, 2, 21.4, Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.BY_PORT, False, (SEEN,), 1400),
    ),
    port=50000,
    routers=(Router("192.168.1.1", "192.168.1.10", (), None, None, False, "pcp: no answer"),),
    directory=Directory(3, 2, 5, 40.0),
    clock_offset_s=-1.25,
    machine=Machine(True, True, ("eth0",)),
)


class Asked:
    """In place of asking anybody."""

    def __init__(self) -> None:
        self.report: Report | BaseException = HOME
        self.configs: list[NetcheckConfig] = []

    async def __call__(self, config: NetcheckConfig, progress: Callable[[str], None]) -> Report:
        self.configs.append(config)
        progress("this machine")
        if isinstance(self.report, BaseException):
            raise self.report
        return self.report


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    made = Asked()
    monkeypatch.setattr(run, "run_netcheck", made)
    return made


def test_for_a_person(cli: Cli, asked: Asked) -> None:
    done = cli("netcheck", "--bootstrap", "192.0.2.1:4690")
    assert done.exit_code == 0 and done.stderr == ""
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for words in (
        "IPv4 works, 2 of 3 nodes answer, 21.4 ms; seen as 198.51.100.7:50000",
        "mapping address-and-port-dependent, filtering address-and-port-dependent",
        "no hairpinning; path MTU 1400",
        "IPv6 no address",
        "192.168.1.1 offers no port mapping",
        "5 nodes found by 3 known, a lookup takes 40.0 ms",
        "right, +1.2 s against other nodes",
        "! direct paths only to members that are public",
        "do: turn on PCP, NAT-PMP or UPnP",
        "- the path takes 1400 bytes over IPv4",
    ):
        assert words in text, words


def test_for_a_program(cli: Cli, asked: Asked) -> None:
    done = cli("netcheck", "--json", "--bootstrap", "192.0.2.1:4690")
    found = json.loads(done.stdout)
    assert (found["verdict"], found["ipv4"]["path_mtu"]) == ("some", 1400)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (HOME, 0),
        (replace(HOME, ipv4=Family(("192.168.1.10",), True, Outside(asked=2))), 4),
        (replace(HOME, ipv4=Family()), 4),
        (replace(HOME, ipv4=Family(("192.168.1.10",), True)), 3),
    ],
    ids=["works", "no answer", "no address", "not tested"],
)
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_how_it_ends(report: Report, code: int, options: list[str], cli: Cli, asked: Asked) -> None:
    asked.report = report
    done = cli("netcheck", *options)
    assert done.exit_code == code
    assert done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    ("error", "code"), [(asyncio.CancelledError(), 130), (SystemRefusedError("no socket: bring it up"), 1)]
)
def test_interrupted_or_refused(error: BaseException, code: int, cli: Cli, asked: Asked) -> None:
    asked.report = error
    done = cli("netcheck")
    assert (done.exit_code, done.stdout) == (code, "")


@pytest.mark.parametrize("address", ["nowhere", "192.0.2.1:0", "[::1"])
def test_what_is_no_address(address: str, cli: Cli, asked: Asked) -> None:
    done = cli("netcheck", "--bootstrap", address)
    assert done.exit_code == 2 and asked.configs == []


def test_what_is_asked_of_whom(cli: Cli, asked: Asked) -> None:
    cli("create", "home")
    cli("create", "work")
    cli("netcheck", "--bootstrap", "192.0.2.1:4690", "--port", "41000")
    cli("netcheck", "--network", "work", "--no-port-mapping")
    first, second = asked.configs
    assert first.known.names == ("192.0.2.1:4690",)
    assert (first.port, first.port_mapping, first.running) == (41000, True, ())
    assert [name for name, _ in first.networks] == ["home", "work"]
    assert (second.port, second.port_mapping) == (None, False)
    assert [name for name, _ in second.networks] == ["work"]


def test_a_network_that_is_not_known(cli: Cli, asked: Asked) -> None:
    assert cli("netcheck", "--network", "nowhere").exit_code == 3


def test_a_node_that_runs_here(cli: Cli, asked: Asked, start_node: Callable[[str], object]) -> None:
    start_node("home")
    cli("netcheck")
    (config,) = asked.configs
    (node,) = config.running
    assert node.network == "home" and node.udp_port is not None and node.interface is not None
    assert node.process_id is not None


def test_a_state_directory_that_may_not_be_read(cli: Cli, asked: Asked, state_dir: Path) -> None:
    (state_dir / "networks").write_text("no directory")
    done = cli("netcheck")
    assert done.exit_code == 0
    assert asked.configs[0].networks == ()


def test_nothing_is_left_and_no_network_is_made(cli: Cli, asked: Asked, state_dir: Path) -> None:
    cli("netcheck")
    assert list(state_dir.iterdir()) == []
