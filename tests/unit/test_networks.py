"""The networks on disk: created, remembered, found; damaged ones kept and named."""

import json
import os
import random
import stat
import threading
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from dhtvpn import networks
from dhtvpn.errors import (
    DamagedStateError,
    DhtVpnError,
    InvalidNetworkIdError,
    NotFoundError,
    SystemRefusedError,
    UsageError,
)
from dhtvpn.membership import network_id as membership
from dhtvpn.networks import NetworkStore


@pytest.fixture
def store(tmp_path: Path) -> NetworkStore:
    return NetworkStore(tmp_path / "state", random.Random(1).randbytes)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_create_and_find_by_every_word(store: NetworkStore) -> None:
    made = store.create("home", ipv4=IPv4Network("10.77.0.0/16"))
    assert made.created_here
    assert made.signing_seed is not None
    for word in ("home", made.network_id.encode(), made.network_id.short, f" {made.network_id.encode()}\n"):
        assert store.find(word) == made
    assert store.list() == [made]
    assert store.directory("home") == made.directory


def test_secrets_stay_out_of_repr(store: NetworkStore) -> None:
    made = store.create("home")
    assert made.signing_seed is not None
    for secret in (made.signing_seed, made.network_id.secret):
        assert secret.hex() not in repr(made)
        assert repr(secret) not in repr(made)


def test_permissions_whatever_the_umask(store: NetworkStore) -> None:
    old = os.umask(0)
    try:
        made = store.create("home")
    finally:
        os.umask(old)
    assert mode(made.directory / "network.json") == 0o600
    assert mode(made.directory) == 0o700
    assert mode(made.directory.parent) == 0o700
    assert mode(store.state_dir) == 0o711


def test_a_taken_name_changes_nothing(store: NetworkStore) -> None:
    made = store.create("home")
    before = (made.directory / "network.json").read_bytes()
    with pytest.raises(DhtVpnError, match="'home' here already") as caught:
        store.create("home")
    assert type(caught.value) is DhtVpnError
    assert (made.directory / "network.json").read_bytes() == before


def test_of_creates_at_once_one_wins(tmp_path: Path) -> None:
    outcomes: list[str] = []

    def create() -> None:
        try:
            NetworkStore(tmp_path).create("home")
            outcomes.append("made")
        except DhtVpnError:
            outcomes.append("refused")

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["made"] + ["refused"] * 7


@pytest.mark.parametrize(
    "name", ["", "Home", "a b", "a/b", "..", "x" * 33, "dv1", "dv1-home", "häuschen", "a\n"]
)
def test_names_that_are_none(store: NetworkStore, name: str) -> None:
    with pytest.raises(UsageError):
        store.create(name)
    with pytest.raises(UsageError):
        store.directory(name)
    assert not store.state_dir.exists()


def test_find_what_is_not_there(store: NetworkStore) -> None:
    with pytest.raises(NotFoundError, match="none is known there yet"):
        store.find("home")
    made = store.create("home")
    with pytest.raises(NotFoundError, match="known there: home"):
        store.find("work")
    other, _ = membership.create(random.Random(2).randbytes)
    with pytest.raises(NotFoundError) as caught:
        store.find(other.encode())
    assert other.encode() not in str(caught.value)
    with pytest.raises(InvalidNetworkIdError):
        store.find(made.network_id.encode()[:-1])


def test_remember_a_new_network(store: NetworkStore) -> None:
    network_id, _ = membership.create(random.Random(3).randbytes)
    first = store.remember(network_id, hostname="laptop", bootstrap=("a:1", "b:2"))
    assert first.name.startswith("net-")
    assert networks.is_network_name(first.name)
    assert (first.created_here, first.signing_seed) == (False, None)
    again = store.remember(network_id, port=5000, bootstrap=("c:3", "a:1"))
    assert (again.hostname, again.port, again.interface) == ("laptop", 5000, None)
    assert again.bootstrap == ("c:3", "a:1", "b:2")
    assert store.find(first.name) == again


def test_what_is_relayed_for_others_is_remembered(store: NetworkStore) -> None:
    known = store.create("home")
    assert known.relay_mbit is None
    assert store.remember(known.network_id, relay_mbit=0).relay_mbit == 0
    assert store.remember(known.network_id).relay_mbit == 0
    assert store.remember(known.network_id, relay_mbit=50).relay_mbit == 50
    assert store.find("home").relay_mbit == 50


def test_remember_keeps_the_creators_seed(store: NetworkStore) -> None:
    made = store.create("home")
    assert store.remember(made.network_id, hostname="desk").signing_seed == made.signing_seed


def test_remember_under_a_chosen_name(store: NetworkStore) -> None:
    network_id, _ = membership.create(random.Random(3).randbytes)
    assert store.remember(network_id, name="cabin").name == "cabin"
    with pytest.raises(UsageError, match="known here as 'cabin'"):
        store.remember(network_id, name="house")
    other, _ = membership.create(random.Random(4).randbytes)
    with pytest.raises(UsageError, match="another network"):
        store.remember(other, name="cabin")
    assert store.find("cabin").network_id.encode() == network_id.encode()


def test_bootstrap_addresses_are_capped(store: NetworkStore) -> None:
    network_id, _ = membership.create(random.Random(3).randbytes)
    store.remember(network_id, bootstrap=[f"old:{port}" for port in range(1, 30)])
    kept = store.remember(network_id, bootstrap=[f"new:{port}" for port in range(1, 30)]).bootstrap
    assert len(kept) == networks.MAX_BOOTSTRAP
    assert kept[:29] == tuple(f"new:{port}" for port in range(1, 30))


def damaged_contents(good: bytes) -> dict[str, bytes]:
    value = json.loads(good)
    return {
        "empty": b"",
        "cut": good[: len(good) // 2],
        "not-json": b"\x00" * 40,
        "list": b"[]",
        "version": json.dumps({**value, "version": 99}).encode(),
        "id": json.dumps({**value, "network_id": value["network_id"][:-1] + "x"}).encode(),
        "id-type": json.dumps({**value, "network_id": 7}).encode(),
        "port": json.dumps({**value, "port": 70000}).encode(),
        "bootstrap": json.dumps({**value, "bootstrap": [1]}).encode(),
        "seed": json.dumps({**value, "signing_seed": "xyz"}).encode(),
        "hostname": json.dumps({**value, "hostname": 5}).encode(),
        "no-id": json.dumps({"version": 1}).encode(),
    }


@pytest.mark.parametrize("kind", sorted(damaged_contents(b'{"network_id": "dv1x"}')))
def test_a_damaged_file_is_named_kept_and_never_replaced(store: NetworkStore, kind: str) -> None:
    made, other = store.create("home"), store.create("work")
    path = made.directory / "network.json"
    content = damaged_contents(path.read_bytes())[kind]
    path.write_bytes(content)
    for _ in range(3):
        with pytest.raises(DamagedStateError, match=r"home/network\.json"):
            store.find("home")
    with pytest.raises(DhtVpnError, match="already"):
        store.create("home")
    network_id, _ = membership.create(random.Random(3).randbytes)
    with pytest.raises(DamagedStateError):
        store.remember(network_id, name="home")
    assert store.list() == [other]
    assert len(store.damaged()) == 1
    assert path.read_bytes() == content
    assert [copy.read_bytes() for copy in made.directory.glob("network.json.damaged*")] == [content]


def test_a_file_in_the_way_of_the_state_directory(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(SystemRefusedError, match="--state-dir"):
        NetworkStore(tmp_path / "state").create("home")


def test_socket_path_limit(tmp_path: Path) -> None:
    fits = Path("/" + "x" * (networks.SOCKET_PATH_LIMIT - len("/run/home.sock") - 1))
    assert len(str(networks.socket_path(fits, "home"))) == networks.SOCKET_PATH_LIMIT
    with pytest.raises(UsageError, match="shorter --state-dir"):
        networks.socket_path(fits, "home2")


def test_default_state_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DHTVPN_STATE_DIR", str(tmp_path))
    assert networks.default_state_dir() == tmp_path
    monkeypatch.delenv("DHTVPN_STATE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert networks.default_state_dir() == Path("/var/lib/dhtvpn")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert networks.default_state_dir() == tmp_path / "xdg" / "dhtvpn"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert networks.default_state_dir() == tmp_path / ".local" / "state" / "dhtvpn"
