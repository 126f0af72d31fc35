"""A private DHT of libtorrent sessions on loopback: nobody else is ever contacted."""

import asyncio
import platform
import time
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import pytest

from dhtvpn.discovery import libtorrent_session
from dhtvpn.discovery.mainline_session import MainlineSession
from dhtvpn.endpoint import Endpoint

LOOPBACK = "127.0.0.1"
SIZE = 20

READY_S = 10.0


def require_libtorrent() -> None:
    """Skip where there is no wheel of libtorrent. On x86-64 there is one, and its absence is a failure."""
    if platform.machine() != "x86_64" and find_spec("libtorrent") is None:
        pytest.skip("there is no wheel of libtorrent for this machine")


class PrivateMainline:
    """``SIZE`` nodes that know each other. ``close`` ends them."""

    def __init__(self, size: int = SIZE) -> None:
        libtorrent = libtorrent_session.load()
        settings = libtorrent_session.settings(libtorrent, [LOOPBACK], (), read_only=False, restricted=False)
        self._sessions: list[Any] = [libtorrent.session(settings) for _ in range(size)]
        until = time.monotonic() + READY_S
        while not all(session.listen_port() for session in self._sessions):
            assert time.monotonic() < until, "libtorrent does not listen"
            time.sleep(0.01)
        self._taken = 0
        self.endpoints = [Endpoint(LOOPBACK, session.listen_port()) for session in self._sessions]
        for session in self._sessions:
            self._introduce(session, self.endpoints)

    async def member(self) -> MainlineSession:
        """One of them, in our hands until it is closed: it lives on, so that no test meets dead nodes."""
        self._taken = (self._taken + 1) % len(self._sessions)
        opened = MainlineSession(libtorrent_session.load(), self._sessions[self._taken])
        async with asyncio.timeout(READY_S):
            await opened.has_nodes.wait()
        return opened

    def close(self) -> None:
        self._sessions.clear()

    @staticmethod
    def _introduce(session: Any, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            if endpoint.port != session.listen_port():
                session.add_dht_node((endpoint.host, endpoint.port))
