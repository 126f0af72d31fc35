"""A few documents by HTTP GET, for a process that should not load a web framework: status and metrics.

HTTP/1.1 (RFC 9112) as far as curl, Prometheus and our own client need it: one request for each connection,
no body, no keep-alive. Every length, number and time that a client could stretch has a cap.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from typing import Final

log = logging.getLogger(__name__)

MAX_HEAD: Final = 4096
"""Octets of request line and headers; Prometheus sends about 300."""

MAX_CLIENTS: Final = 8
"""Connections at one time; further ones are closed at once."""

PATIENCE_S: Final = 5.0
"""For a request to come whole, and for its answer to be taken."""

Document = Callable[[], tuple[str, bytes]]
"""Returns the content type and the body."""

_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Failed"}
_END: Final = b"\r\n\r\n"


class PlainHttp:
    """Serves ``documents`` (path to document) on listening sockets from :meth:`start` to :meth:`close`."""

    def __init__(self, documents: Mapping[str, Document]) -> None:
        self._documents = dict(documents)
        self._servers: list[asyncio.Server] = []
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket) -> None:
        """Answer on ``listener`` (TCP or Unix, bound), which belongs to the server from now on."""
        starts = asyncio.start_unix_server if listener.family == socket.AF_UNIX else asyncio.start_server
        self._servers.append(await starts(self._accepted, sock=listener, limit=MAX_HEAD))

    async def close(self) -> None:
        """End every connection and stop listening."""
        for server in self._servers:
            server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._servers.clear()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(_END)
                writer.write(self._answer(head))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # gone, or too slow
        except asyncio.LimitOverrunError:
            writer.write(_response(400, "text/plain", b"too long\n"))
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await writer.wait_closed()

    def _answer(self, head_untrusted: bytes) -> bytes:
        """The whole response to a request."""
        method, _, rest = head_untrusted.split(b"\r\n", 1)[0].partition(b" ")
        target, _, version = rest.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            return _response(400, "text/plain", b"this is HTTP/1.1\n")
        document = self._documents.get(target.partition(b"?")[0].decode("latin-1"))
        if document is None:
            return _response(404, "text/plain", b"no such document\n")
        if method != b"GET":
            return _response(405, "text/plain", b"GET only\n")
        try:
            return _response(200, *document())
        except Exception:
            log.exception("bug in a document of the local API")
            return _response(500, "text/plain", b"the log says why\n")


def _response(status: int, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
