"""A reader of the events stream that does not read, over a real socket: it costs nothing, and is told."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

from dhtvpn.control.client import ControlClient
from dhtvpn.control.server import ControlServer
from dhtvpn.node.events import HISTORY, Events

TEXT = "x" * 1000
COUNT = 5 * HISTORY


async def test_a_stuck_reader_neither_blocks_nor_grows_the_node(node: Any, run_dir: Path) -> None:
    events = Events(lambda kind, text: None)
    node.events = lambda last, after, follow: events.stream(last=last, after=after, follow=follow)
    server = ControlServer(node, run_dir / "home.sock")
    await server.start()
    reader = socket.socket(socket.AF_UNIX)
    try:
        reader.connect(str(run_dir / "home.sock"))
        reader.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for number in range(COUNT):
            events.say("test", TEXT)
            if number % 50 == 0:
                await asyncio.sleep(0)  # the stream's turn: it writes until the socket is full
        assert len(events._ring) == HISTORY
        client = ControlClient(run_dir / "home.sock")
        async with asyncio.timeout(5):
            assert (await asyncio.to_thread(client.status))["network"]["name"] == "home"
        lines = await asyncio.to_thread(read_until, reader, COUNT)
    finally:
        reader.close()
        await server.close()
    missed = [line for line in lines if line["event"] == "missed"]
    told = sum(line["event"] == "test" for line in lines)
    assert missed and sum(line["count"] for line in missed) + told == COUNT
    assert told >= HISTORY


def read_until(reader: socket.socket, wanted: int) -> list[dict[str, Any]]:
    """Every line up to the event with this number."""
    reader.settimeout(10)
    lines: list[dict[str, Any]] = []
    with reader.makefile("rb") as stream:
        for line in stream:
            if line.startswith(b"{"):
                lines.append(json.loads(line))
                if lines[-1]["seq"] == wanted:
                    break
    return lines
