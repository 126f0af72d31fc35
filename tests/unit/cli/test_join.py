"""``join``: what it checks, what it remembers, and what it hands to the daemon."""

import json
import random
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import Result

from dhtvpn import choices, errors
from dhtvpn.choices import DEFAULT_DISCOVERY, Discovery
from dhtvpn.cli import join as join_command
from dhtvpn.membership import network_id as membership
from dhtvpn.node.config import NodeConfig

Cli = Callable[..., Result]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The machine may join; the daemon only notes the configuration that it is given."""
    configurations: list[Any] = []

    async def run_node(config: Any, report: Callable[[str, str], None], ready: Callable[[], None]) -> None:
        configurations.append(config)
        report("start", "here we go\x1b[2J")
        ready()

    module = ModuleType("dhtvpn.daemon")
    module.run_node = run_node  # type: ignore[attr-defined]
    module.NodeConfig = NodeConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dhtvpn.daemon", module)
    monkeypatch.setattr(join_command, "require_net_admin", lambda: None)
    monkeypatch.setattr(join_command, "TUN_DEVICE", Path("/dev/null"))
    return configurations


def new_id(seed: int = 1) -> str:
    return membership.create(random.Random(seed).randbytes)[0].encode()


def test_join_by_id_then_by_name_with_the_same_choices(cli: Cli, daemon: list[Any], state_dir: Path) -> None:
    words = ["--name", "Laptop", "--port", "4001", "--interface", "vpn7", "--bootstrap", "node.example:4690"]
    result = cli("join", new_id(), *words)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "here we go?[2J\n"
    (config,) = daemon
    assert config.network.startswith("net-")
    assert config.network_id.encode() == new_id()
    assert config.network_directory == state_dir / "networks" / config.network
    assert config.socket_path == state_dir / "run" / f"{config.network}.sock"
    assert (config.hostname, config.port, config.interface) == ("laptop", 4001, "vpn7")
    assert config.bootstrap == ("node.example:4690",)
    assert cli("join", config.network).exit_code == 0
    assert daemon[1] == config


def test_sources_and_hints_are_remembered(cli: Cli, daemon: list[Any]) -> None:
    assert cli("join", new_id(), "--network", "home").exit_code == 0
    assert daemon[0].discovery == DEFAULT_DISCOVERY and daemon[0].peers == ()
    words = ["--discovery", "Kademlia, lan,kademlia", "--peer", "server.example:4000", "--peer", "[::1]:1"]
    assert cli("join", "home", *words).exit_code == 0
    assert cli("join", "home").exit_code == 0
    for config in daemon[1:]:
        assert config.discovery == (Discovery.KADEMLIA, Discovery.LAN)
        assert config.peers == ("server.example:4000", "[::1]:1")


def test_port_mapping_is_on_until_it_is_turned_off(cli: Cli, daemon: list[Any]) -> None:
    for words in (["--network", "home"], ["--no-port-mapping"], [], ["--port-mapping"], []):
        assert cli("join", new_id(), *words).exit_code == 0
    assert [config.port_mapping for config in daemon] == [True, False, False, True, True]


def test_one_switch_adds_mainline_and_is_remembered(
    cli: Cli, daemon: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "find_spec", lambda name: object())
    assert cli("join", new_id(), "--network", "home", "--mainline").exit_code == 0
    assert cli("join", "home").exit_code == 0
    for config in daemon:
        assert config.discovery == (*DEFAULT_DISCOVERY, Discovery.MAINLINE)
        assert config.mainline_routers == (), "the public ones"
    words = ["--discovery", "lan", "--mainline", "--mainline-router", "router.example:6881"]
    assert cli("join", "home", *words, "--mainline-router", "[::1]:7").exit_code == 0
    assert cli("join", "home").exit_code == 0
    for config in daemon[2:]:
        assert config.discovery == (Discovery.LAN, Discovery.MAINLINE)
        assert config.mainline_routers == ("router.example:6881", "[::1]:7")
    assert cli("join", "home", "--discovery", "lan").exit_code == 0
    assert daemon[-1].discovery == (Discovery.LAN,), "and it can be left out again"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--mainline-router", "router.example"], "write HOST:PORT"),
        (["--discovery", "lan,carrier-pigeon"], "there is no source 'carrier-pigeon'; choose from lan, kade"),
        (["--discovery", "lan,,kademlia"], "has an empty place"),
        (["--discovery", ""], "has an empty place"),
        (["--peer", "server.example"], "write HOST:PORT"),
    ],
)
def test_sources_that_cannot_be(cli: Cli, daemon: list[Any], words: list[str], sentence: str) -> None:
    result = cli("join", new_id(), *words)
    assert result.exit_code == 2 and sentence in result.stderr
    assert daemon == []


def test_mainline_without_libtorrent_says_what_to_install(
    cli: Cli, daemon: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "find_spec", lambda name: None)
    result = cli("join", new_id(), "--discovery", "lan,mainline")
    assert result.exit_code == 1 and "pip install 'dhtvpn[mainline]'" in result.stderr
    assert "Traceback" not in result.stderr and "wheels" in result.stderr
    assert cli("join", new_id(), "--mainline").stderr == result.stderr
    monkeypatch.setattr(choices, "find_spec", lambda name: object())
    assert cli("join", new_id(), "--network", "home", "--discovery", "mainline").exit_code == 0
    monkeypatch.setattr(choices, "find_spec", lambda name: None)
    again = cli("join", "home")
    assert again.exit_code == 1 and "libtorrent" in again.stderr, "it was there when it was chosen"
    assert len(daemon) == 1


def test_join_from_stdin_under_a_chosen_name(cli: Cli, daemon: list[Any]) -> None:
    result = cli("join", "-", "--network", "cabin", "--json", stdin=f"  {new_id()}\n")
    assert result.exit_code == 0, result.stderr
    assert daemon[0].network == "cabin"
    assert json.loads(result.stdout)["kind"] == "start"
    assert cli("join", "-", stdin="").exit_code == 2


def test_hostname_by_default(cli: Cli, daemon: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Anna's_PC.example.net")
    cli("join", new_id())
    assert daemon[0].hostname == "anna-s-pc"
    monkeypatch.setattr(socket, "gethostname", lambda: "...")
    assert join_command.machine_hostname() == "node"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["nobody"], 3, "no network 'nobody'"),
        ([new_id()[:-3]], 2, "3 characters short"),
        ([new_id()[:40] + "!" + new_id()[41:]], 2, "'!'"),
        ([new_id()[:40] + ("a" if new_id()[40] != "a" else "b") + new_id()[41:]], 2, "checksum"),
        (["not a network-id at all"], 2, "network-id"),
        ([new_id(), "--name", "a b"], 2, "is no host name"),
        ([new_id(), "--name", "-x"], 2, "is no host name"),
        ([new_id(), "--bootstrap", "1:2:3"], 2, "is not an address"),
        ([new_id(), "--interface", "i" * 16], 2, "is no interface name"),
        ([new_id(), "--port", "0"], 2, "--port"),
        ([new_id(), "--network", "A"], 2, "is no network name"),
    ],
)
def test_join_refuses(cli: Cli, daemon: list[Any], words: list[str], code: int, sentence: str) -> None:
    result = cli("join", *words)
    assert result.exit_code == code
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert daemon == []
    assert json.loads(cli("list", "--json").stdout)["networks"] == []


def test_join_while_it_runs(cli: Cli, daemon: list[Any], start_node: Callable[[str], Any]) -> None:
    cli("create", "home")
    start_node("home")
    result = cli("join", "home")
    assert result.exit_code == 1
    assert "this machine is already in home (pid " in result.stderr
    assert daemon == []


def test_join_without_privilege_or_device(
    cli: Cli, daemon: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("create", "home")
    monkeypatch.setattr(join_command, "TUN_DEVICE", Path("/dev/none/tun"))
    result = cli("join", "home")
    assert result.exit_code == 1
    assert "modprobe tun" in result.stderr

    def refuse() -> None:
        raise errors.SystemRefusedError("run the command again with sudo")

    monkeypatch.setattr(join_command, "require_net_admin", refuse)
    result = cli("join", "home")
    assert result.exit_code == 1
    assert "sudo" in result.stderr
    assert daemon == []


def test_a_damaged_neighbour_is_told_on_join_by_id(cli: Cli, daemon: list[Any], state_dir: Path) -> None:
    cli("create", "home")
    (state_dir / "networks" / "home" / "network.json").write_text("")
    result = cli("join", new_id())
    assert result.exit_code == 0
    assert "home/network.json is damaged" in result.stderr
