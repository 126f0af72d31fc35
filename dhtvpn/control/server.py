"""Serve the local API of one node over a Unix socket (paths and shapes: docs/local-api.md)."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dhtvpn.control import schema, without_tls
from dhtvpn.control.socket_file import GROUP, SOCKET_BACKLOG, take_socket
from dhtvpn.errors import DhtVpnError, TimedOutError, UsageError

with without_tls.importing():
    from aiohttp import web

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 1.0  # ours: a request that is still running then is cut off
SETTLE_TURNS = 4  # turns of the loop: accept, make the transport, tell the protocol, and one to spare
RECHECK_S = 1.0  # ours: a wait looks again this often even if no change was announced
DEFAULT_WAIT_S = 60.0
MAX_WAIT_S = 86_400.0
MAX_EVENT_NUMBER = 1 << 53  # what every JSON parser takes
MIN_PING_INTERVAL_S = 0.05  # ours: a ping is a look, not a load generator

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ControlServer:
    """One node's local API. ``start`` takes the socket, ``close`` gives it back and removes it."""

    def __init__(self, api: schema.NodeApi, path: Path, group: str = GROUP) -> None:
        self._api = api
        self._path = path
        self._group = group
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None
        self._inode: int | None = None
        self._open_ended: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Raises DhtVpnError when a live node has the socket, SystemRefusedError when it cannot be made."""
        listener = take_socket(
            self._path,
            self._group,
            taken="this machine is already in {name} (pid {pid}): use it, or stop it with 'dhtvpn leave'",
        )
        try:
            self._inode = self._path.stat().st_ino
            app = web.Application(middlewares=[_errors_as_json], client_max_size=schema.MAX_REQUEST_BYTES)
            app.add_routes(self._routes())
            self._runner = web.AppRunner(
                app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_TIMEOUT_S
            )
            await self._runner.setup()
            await web.SockSite(self._runner, listener, backlog=SOCKET_BACKLOG).start()
            self._listener = listener
        except BaseException:
            listener.close()
            self._unlink()
            raise

    async def close(self) -> None:
        """End every stream and wait, close the socket, and remove its file if it is still ours."""
        self._unlink()
        for task in list(self._open_ended):
            task.cancel()
        if self._runner is None or self._listener is None:
            return
        # A socket that has just been accepted reaches its protocol in later turns of the loop, and is lost
        # unclosed when the server closes meanwhile: stop accepting first, let those arrive, then close.
        asyncio.get_running_loop().remove_reader(self._listener)
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
        await self._runner.cleanup()
        self._runner = self._listener = None

    def _unlink(self) -> None:
        with suppress(OSError):
            if self._inode is not None and self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._inode = None

    def _routes(self) -> list[web.RouteDef]:
        prefix = schema.API_PREFIX
        return [
            web.get(f"{prefix}/status", self._status),
            web.get(f"{prefix}/peers", self._peers),
            web.get(f"{prefix}/events", self._events),
            web.get(f"{prefix}/wait", self._wait),
            web.get(f"{prefix}/why", self._why),
            web.get(f"{prefix}/graph", self._graph),
            web.post(f"{prefix}/ping", self._ping),
            web.post(f"{prefix}/leave", self._leave),
            web.get(f"{prefix}/stock-peers", self._stock_peers),
            web.post(f"{prefix}/stock-peers", self._add_stock_peer),
            web.delete(f"{prefix}/stock-peers/{{name}}", self._remove_stock_peer),
        ]

    async def _status(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._api.status())

    async def _peers(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"peers": self._api.status()["peers"]})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        last = _optional_number(request.query.get("last"), "last", MAX_EVENT_NUMBER)
        after = _optional_number(request.query.get("after"), "after", MAX_EVENT_NUMBER)
        follow = bool(_number(request.query.get("follow", 1), "follow", 0, 1))
        return await self._stream(request, self._api.events(last, after, follow), first=None)

    async def _why(self, request: web.Request) -> web.StreamResponse:
        peer = request.query.get("peer")
        if not peer:
            raise UsageError("say about whom: /v1/why?peer=WHO")
        return web.json_response(dict(self._api.why(peer)))

    async def _graph(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(dict(self._api.graph()))

    async def _ping(self, request: web.Request) -> web.StreamResponse:
        body = await _json_body(request)
        peer = _text(body, "peer")
        count = _number(body.get("count", 4), "count", 1, schema.MAX_PING_COUNT)
        interval_s = _number(body.get("interval_s", 1.0), "interval_s", MIN_PING_INTERVAL_S, MAX_WAIT_S)
        until_direct = body.get("until_direct", False)
        if not isinstance(until_direct, bool):
            raise UsageError("until_direct must be true or false")
        replies = self._api.ping(peer, int(count), interval_s, until_direct)
        # The first reply is fetched before the headers go out, so "no such peer" is a proper 404.
        first = await anext(replies, None)
        return await self._stream(request, replies, first)

    async def _wait(self, request: web.Request) -> web.StreamResponse:
        peer = request.query.get("peer")
        wanted = int(_number(request.query.get("peers", 1), "peers", 0, 1_000_000))
        timeout_s = _number(request.query.get("timeout_s", DEFAULT_WAIT_S), "timeout_s", 0, MAX_WAIT_S)
        if peer is not None and "peers" in request.query:
            raise UsageError("wait for a number of peers or for one peer, not for both")
        with _Registered(self._open_ended):
            return web.json_response(await self._wait_until(peer, wanted, timeout_s))

    async def _wait_until(self, peer: str | None, wanted: int, timeout_s: float) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            peers = self._api.status()["peers"]
            candidates = peers if peer is None else schema.peers_matching(peers, peer)
            connected = [each for each in candidates if each["state"] == "connected"]
            if len(connected) >= (wanted if peer is None else 1):
                return {"peers": connected}
            remaining_s = deadline - loop.time()
            if remaining_s <= 0:
                raise TimedOutError(_unmet(peer, wanted, len(connected), timeout_s, candidates))
            await self._api.changed(min(remaining_s, RECHECK_S))

    async def _leave(self, request: web.Request) -> web.StreamResponse:
        await self._api.leave()
        return web.json_response({"leaving": True}, status=202)

    async def _stock_peers(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"stock_peers": [dict(each) for each in self._api.stock_peers()]})

    async def _add_stock_peer(self, request: web.Request) -> web.StreamResponse:
        body = await _json_body(request)
        added = await self._api.add_stock_peer(_text(body, "name"), _text(body, "public_key"))
        return web.json_response(dict(added), status=201)

    async def _remove_stock_peer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        await self._api.remove_stock_peer(name)
        return web.json_response({"removed": name})

    async def _stream(
        self,
        request: web.Request,
        items: AsyncIterator[Mapping[str, Any]],
        first: Mapping[str, Any] | None,
    ) -> web.StreamResponse:
        """One JSON object per line until ``items`` ends, the client goes or the server closes."""
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        with _Registered(self._open_ended):
            try:
                await response.prepare(request)
                if first is not None:
                    await response.write(_line(first))
                async for item in items:
                    await response.write(_line(item))
            except DhtVpnError as error:
                await response.write(_line(_error_body(error)))
            except ConnectionError:
                log.debug("a client of the local API went away during a stream")
            finally:
                if close := getattr(items, "aclose", None):
                    await close()
        return response


class _Registered:
    """Puts the current task into ``tasks`` for as long as it is open-ended, so that close() can end it."""

    def __init__(self, tasks: set[asyncio.Task[Any]]) -> None:
        self._tasks = tasks
        self._task = asyncio.current_task()

    def __enter__(self) -> None:
        if self._task is not None:
            self._tasks.add(self._task)

    def __exit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._tasks.discard(self._task)


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure is ``{"error": sentence, "kind": word}``; a bug is logged here and stays here."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        body = {"error": f"{request.method} {request.path}: {error.reason}", "kind": "usage"}
        return web.json_response(body, status=error.status)
    except DhtVpnError as error:
        status = schema.ERROR_KINDS[schema.kind_of(error)]["http_status"]
        return web.json_response(_error_body(error), status=status)
    except Exception:
        log.exception("bug in the local API: %s %s", request.method, request.path)
        body = {"error": "the node failed to answer this; its log says where", "kind": "failed"}
        return web.json_response(body, status=500)


def _error_body(error: DhtVpnError) -> dict[str, str]:
    return {"error": str(error), "kind": schema.kind_of(error)}


def _line(item: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(item)).encode() + b"\n"


async def _json_body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise UsageError("the request's body is not JSON") from None
    if not isinstance(body, dict):
        raise UsageError("the request's body is not a JSON object")
    return body


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise UsageError(f"the request lacks {name!r}, a string")
    return value


def _number(value: object, name: str, least: float, most: float) -> float:
    """``value`` from JSON or a query string as a number in range. Raises UsageError."""
    try:
        number = float(value) if isinstance(value, (str, int, float)) else None
    except ValueError:
        number = None
    if number is None or isinstance(value, bool) or not least <= number <= most:
        raise UsageError(f"{name} must be a number from {least:g} to {most:g}")
    return number


def _optional_number(value: object, name: str, most: int) -> int | None:
    return None if value is None else int(_number(value, name, 0, most))


def _unmet(
    peer: str | None, wanted: int, connected: int, timeout_s: float, candidates: list[Mapping[str, Any]]
) -> str:
    if peer is None:
        return f"after {timeout_s:g} s {connected} of {wanted} peers were connected"
    state = candidates[0]["state"] if candidates else "not seen yet"
    return f"after {timeout_s:g} s {peer!r} was not connected (it is {state})"
