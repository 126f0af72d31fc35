"""Documents over HTTP: what a client may do, and what it cannot make the node do."""

import asyncio
import socket

import pytest

from dhtvpn.control import plain_http
from dhtvpn.control.plain_http import MAX_CLIENTS, MAX_HEAD, PlainHttp


@pytest.fixture
async def address():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    server = PlainHttp({"/metrics": lambda: ("text/plain", b"a 1\n"), "/broken": lambda: 1 / 0})
    await server.start(listener)
    yield listener.getsockname()
    await server.close()


async def ask(address, request):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode(), head, body


async def test_a_document(address):
    status, head, body = await ask(address, b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == "HTTP/1.1 200 OK"
    assert body == b"a 1\n"
    assert b"Content-Length: 4" in head
    assert b"Connection: close" in head


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\xff\xfe\x00 \xff HTTP/1.1\r\n\r\n", 404),
        (b"\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 2 * MAX_HEAD + b"\r\n\r\n", 400),
    ],
)
async def test_everything_else_is_refused(address, request_, status):
    line, _, _ = await ask(address, request_)
    assert line.startswith(f"HTTP/1.1 {status} ")


async def test_a_bug_in_a_document_is_logged_and_answered(address, caplog, monkeypatch):
    said = []
    monkeypatch.setattr(plain_http.log, "exception", said.append)
    line, _, _ = await ask(address, b"GET /broken HTTP/1.1\r\n\r\n")
    assert line.startswith("HTTP/1.1 500 ")
    assert said == ["bug in a document of the local API"]


async def test_slow_clients_are_few_and_are_cut_off(address, monkeypatch):
    monkeypatch.setattr(plain_http, "PATIENCE_S", 0.2)
    idle = [await asyncio.open_connection(*address) for _ in range(MAX_CLIENTS)]
    await asyncio.sleep(0.05)
    reader, writer = await asyncio.open_connection(*address)
    with pytest.raises(ConnectionError):
        assert await reader.read() == b""
        raise ConnectionResetError
    writer.close()
    for one, other in idle:
        async with asyncio.timeout(5):
            assert await one.read() == b""
        other.close()
    line, _, _ = await ask(address, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert line == "HTTP/1.1 200 OK"
