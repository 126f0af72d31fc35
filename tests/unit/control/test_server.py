"""The server and the client together, over a real Unix socket."""

import asyncio
import gc
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dhtvpn import errors
from dhtvpn.control import schema
from dhtvpn.control.client import ControlClient, _UnixConnection, listening_process
from dhtvpn.control.server import ControlServer

T = TypeVar("T")


async def off_loop(call: Callable[[], T]) -> T:
    return await asyncio.to_thread(call)


@pytest.fixture
def client(server: ControlServer, run_dir: Path) -> ControlClient:
    return ControlClient(run_dir / "home.sock")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def group_of(path: Path) -> int:
    return path.stat().st_gid


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def leave_a_dead_socket(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def raw(path: Path, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = _UnixConnection(path, 5)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def test_status_and_peers(client: ControlClient, node: Any) -> None:
    assert await off_loop(client.status) == node.status()
    assert await off_loop(client.peers) == node.peers


async def test_status_has_every_part_of_the_contract(client: ControlClient) -> None:
    document = await off_loop(client.status)
    assert set(document) == set(schema.StatusDocument.__annotations__)
    assert set(document["peers"][0]) == set(schema.PeerPart.__annotations__)


async def test_ping_streams_replies(client: ControlClient) -> None:
    replies = await off_loop(lambda: list(client.ping("laptop", 3, 0.05)))
    assert [reply["seq"] for reply in replies] == [1, 2, 3]
    assert replies[0]["path"] == "direct"


async def test_ping_of_an_unknown_peer_is_not_found(client: ControlClient) -> None:
    with pytest.raises(errors.NotFoundError, match="no peer 'nobody'"):
        await off_loop(lambda: list(client.ping("nobody", 1)))


async def test_a_client_that_goes_away_ends_its_ping(client: ControlClient, node: Any) -> None:
    def one_of_many() -> None:
        replies = client.ping("laptop", 1000, 0.05)
        next(replies)
        replies.close()  # type: ignore[attr-defined]

    await off_loop(one_of_many)
    async with asyncio.timeout(5):
        await node.ping_ended.wait()


async def test_a_bug_is_one_sentence_without_details(
    client: ControlClient, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(errors.DhtVpnError) as caught:
        await off_loop(lambda: list(client.ping("bug", 1)))
    assert "secret" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "bug in the local API" in caplog.text
    caplog.clear()  # this ERROR was meant


async def test_wait_returns_at_once_when_it_is_so(client: ControlClient) -> None:
    connected = await off_loop(lambda: client.wait(peers=1, timeout_s=5))
    assert [each["name"] for each in connected] == ["laptop"]
    assert await off_loop(lambda: client.wait(peers=0, timeout_s=5))


async def test_wait_returns_when_a_peer_comes_up(client: ControlClient, node: Any) -> None:
    waiting = asyncio.create_task(off_loop(lambda: client.wait(peer="phone", timeout_s=10)))
    await asyncio.sleep(0)
    node.peers[1] = {**node.peers[1], "state": "connected"}
    node.changes.set()
    assert [each["name"] for each in await waiting] == ["phone"]


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"peers": 2}, "1 of 2 peers"),
        ({"peer": "phone"}, "it is connecting"),
        ({"peer": "stranger"}, "it is not seen yet"),
    ],
)
async def test_wait_times_out(client: ControlClient, wanted: dict[str, Any], sentence: str) -> None:
    with pytest.raises(errors.TimedOutError, match=sentence):
        await off_loop(lambda: client.wait(**wanted, timeout_s=0.05))


async def test_leave_asks_the_node(run_dir: Path, server: ControlServer, node: Any) -> None:
    status, body = await off_loop(lambda: raw(run_dir / "home.sock", "POST", "/v1/leave"))
    assert (status, json.loads(body)) == (202, {"leaving": True})
    assert node.leaving.is_set()


async def test_stock_peers(client: ControlClient) -> None:
    added = await off_loop(lambda: client.add_stock_peer("phone", "KEY"))
    assert set(added) == set(schema.StockPeerSetup.__annotations__)
    listed = await off_loop(client.stock_peers)
    assert [set(each) for each in listed] == [set(schema.StockPeer.__annotations__)]
    with pytest.raises(errors.UsageError, match="already"):
        await off_loop(lambda: client.add_stock_peer("phone", "KEY"))
    await off_loop(lambda: client.remove_stock_peer("phone"))
    with pytest.raises(errors.NotFoundError):
        await off_loop(lambda: client.remove_stock_peer("a/../b ü"))


async def test_close_ends_streams_and_removes_the_socket(
    server: ControlServer, client: ControlClient, run_dir: Path
) -> None:
    seen: list[dict[str, Any]] = []

    def follow() -> None:
        with pytest.raises(errors.NotRunningError):
            seen.extend(client.events())

    following = asyncio.create_task(off_loop(follow))
    async with asyncio.timeout(5):
        while not seen:  # noqa: ASYNC110 - filled by the other thread
            await asyncio.sleep(0.01)
        await server.close()
        await following
    assert [event["event"] for event in seen] == ["start", "upgraded"]
    assert files_in(run_dir) == []


async def test_events_are_asked_for_by_number(client: ControlClient, node: Any) -> None:
    listed = await off_loop(lambda: list(client.events(last=1, follow=False)))
    assert [event["seq"] for event in listed] == [2]
    await off_loop(lambda: list(client.events(after=7, follow=False)))
    assert node.asked_events == (None, 7, False)


async def test_why_and_graph_have_every_part_of_the_contract(client: ControlClient) -> None:
    document = await off_loop(lambda: client.why("laptop"))
    assert set(document) == set(schema.WhyDocument.__annotations__)
    assert set(document["pairs"][0]) == set(schema.PairPart.__annotations__)
    assert set(document["own"]) == set(schema.SidePart.__annotations__)
    mesh = await off_loop(client.graph)
    assert set(mesh) == set(schema.GraphDocument.__annotations__)
    assert set(mesh["edges"][0]) == set(schema.GraphEdge.__annotations__)
    assert set(mesh["nodes"][0]) == set(schema.GraphNode.__annotations__)
    with pytest.raises(errors.NotFoundError, match="no peer 'nobody'"):
        await off_loop(lambda: client.why("nobody"))


async def test_a_ping_until_direct_ends_with_the_first_direct_reply(client: ControlClient, node: Any) -> None:
    node.direct_from = 3
    replies = await off_loop(lambda: list(client.ping("laptop", 10, 0.05, until_direct=True)))
    assert [reply["path"] for reply in replies] == ["relayed", "relayed", "direct"]
    assert node.until_direct


async def test_close_during_a_ping_is_told(server: ControlServer, client: ControlClient) -> None:
    replies = client.ping("laptop", 1000, 5.0)
    assert (await off_loop(lambda: next(replies)))["seq"] == 1
    await server.close()
    with pytest.raises(errors.NotRunningError, match="stopped while it was asked"):
        await off_loop(lambda: list(replies))


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("PUT", "/v1/status", None, 405),
        ("POST", "/v1/ping", b"not json", 400),
        ("POST", "/v1/ping", b"[1]", 400),
        ("POST", "/v1/ping", b'{"peer": "laptop", "until_direct": 1}', 400),
        ("GET", "/v1/why", None, 400),
        ("GET", "/v1/events?last=-1", None, 400),
        ("GET", "/v1/events?after=x", None, 400),
        ("GET", "/v1/events?follow=2", None, 400),
        ("POST", "/v1/ping", b"{}", 400),
        ("POST", "/v1/ping", b"[" * 5000, 400),
        ("POST", "/v1/ping", b'{"peer": "laptop", "count": 0}', 400),
        ("POST", "/v1/ping", b'{"peer": "laptop", "count": true}', 400),
        ("POST", "/v1/ping", b'{"peer": "laptop", "count": "x"}', 400),
        ("POST", "/v1/ping", b'{"peer": "laptop", "interval_s": NaN}', 400),
        ("POST", "/v1/stock-peers", b'{"name": 1}', 400),
        ("GET", "/v1/wait?timeout_s=nan", None, 400),
        ("GET", "/v1/wait?peers=-1", None, 400),
        ("GET", "/v1/wait?peers=1&peer=x", None, 400),
        ("POST", "/v1/stock-peers", b" " * (schema.MAX_REQUEST_BYTES + 1), 413),
    ],
)
async def test_wrong_requests(
    client: ControlClient, method: str, target: str, body: bytes | None, status: int
) -> None:
    answered, content = await off_loop(lambda: raw(client.path, method, target, body))
    assert answered == status
    answer = json.loads(content)
    assert set(answer) == {"error", "kind"}
    assert answer["kind"] == "usage"


async def test_bytes_that_are_no_http_do_no_harm(server: ControlServer, client: ControlClient) -> None:
    def shout() -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(client.path))
            connection.sendall(b"\x00\xff\x16\x03" * 64 + b"\r\n\r\n")
            connection.settimeout(5)
            while connection.recv(4096):
                pass

    await off_loop(shout)
    assert await off_loop(client.status)


async def test_permissions_without_the_group(node: Any, run_dir: Path) -> None:
    server = ControlServer(node, run_dir / "home.sock", group="no-such-group")
    await server.start()
    assert mode(run_dir) == 0o700
    assert mode(run_dir / "home.sock") == 0o600
    await server.close()


async def test_permissions_with_the_group(node: Any, run_dir: Path) -> None:
    import grp

    group = grp.getgrgid(os.getgid())
    server = ControlServer(node, run_dir / "home.sock", group=group.gr_name)
    await server.start()
    assert mode(run_dir) == 0o750
    assert mode(run_dir / "home.sock") == 0o660
    assert group_of(run_dir / "home.sock") == group.gr_gid
    await server.close()


async def test_a_live_socket_is_not_taken_over(server: ControlServer, node: Any, run_dir: Path) -> None:
    with pytest.raises(errors.DhtVpnError, match=rf"already in home \(pid {os.getpid()}\)"):
        await ControlServer(node, run_dir / "home.sock").start()
    assert await off_loop(lambda: listening_process(run_dir / "home.sock")) == os.getpid()


async def test_a_dead_nodes_socket_is_replaced(node: Any, run_dir: Path) -> None:
    leave_a_dead_socket(run_dir / "home.sock")
    server = ControlServer(node, run_dir / "home.sock")
    await server.start()
    assert await off_loop(ControlClient(run_dir / "home.sock").status)
    await server.close()
    assert files_in(run_dir) == []


async def test_of_two_servers_at_once_one_wins(node: Any, run_dir: Path) -> None:
    servers = [ControlServer(node, run_dir / "home.sock") for _ in range(2)]
    results = await asyncio.gather(*(server.start() for server in servers), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["DhtVpnError", "NoneType"]
    for server in servers:
        await server.close()


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_comes_during_close_is_closed(node: Any, run_dir: Path, turns: int) -> None:
    server = ControlServer(node, run_dir / "home.sock")
    await server.start()
    assert listening_process(run_dir / "home.sock")  # the kernel accepts; the loop has yet to learn of it
    for _ in range(turns):
        await asyncio.sleep(0)
    await server.close()
    gc.collect()  # a socket left open would be a ResourceWarning, which is an error


async def test_a_socket_of_somebody_else_is_left_alone_on_close(server: ControlServer, run_dir: Path) -> None:
    path = run_dir / "home.sock"
    path.unlink()
    path.write_text("another's")
    await server.close()
    assert path.read_text() == "another's"


async def test_a_path_that_cannot_be_a_socket(node: Any, run_dir: Path) -> None:
    with pytest.raises(errors.SystemRefusedError, match="cannot make the control socket"):
        await ControlServer(node, run_dir / ("x" * 200)).start()
