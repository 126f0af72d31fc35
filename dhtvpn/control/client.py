"""Ask a running node over its Unix socket. Standard library only, so that the CLI starts fast."""

import http.client
import json
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from dhtvpn.control import schema
from dhtvpn.errors import DhtVpnError, NotRunningError, SystemRefusedError, TimedOutError

ANSWER_TIMEOUT_S = 10.0  # ours: a node that does not answer in this time is stuck
PROBE_TIMEOUT_S = 2.0
ENDING_POLL_S = 0.05
PEER_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))


class ControlClient:
    """The local API of the node that listens on ``path``.

    Every method raises NotRunningError when nobody listens there, SystemRefusedError when we may not
    ask, TimedOutError when no answer comes, and whatever error of the tree the node answered with.
    """

    def __init__(self, path: Path, name: str | None = None, start_with: str | None = None) -> None:
        """``name``: of the node in sentences, that of the socket unless given; ``start_with``: the command
        that starts it."""
        self.path = path
        self.name = name or path.stem
        self._start_with = start_with or f"sudo dhtvpn join {self.name}"

    def status(self) -> dict[str, Any]:
        """A ``schema.StatusDocument``."""
        return self._ask("GET", "/status")

    def peers(self) -> list[dict[str, Any]]:
        """A ``schema.PeerPart`` each."""
        answer: list[dict[str, Any]] = self._ask("GET", "/peers")["peers"]
        return answer

    def why(self, peer: str) -> dict[str, Any]:
        """A ``schema.WhyDocument``. Raises NotFoundError for an unknown peer."""
        return self._ask("GET", f"/why?{urlencode({'peer': peer})}")

    def graph(self) -> dict[str, Any]:
        """A ``schema.GraphDocument``."""
        return self._ask("GET", "/graph")

    def ping(
        self, peer: str, count: int, interval_s: float = 1.0, *, until_direct: bool = False
    ) -> Iterator[dict[str, Any]]:
        """``count`` times a ``schema.PingReply``, fewer when one has come directly that was waited for.
        Raises NotFoundError for an unknown peer."""
        body = {"peer": peer, "count": count, "interval_s": interval_s, "until_direct": until_direct}
        received = 0
        for reply in self._stream("POST", "/ping", body, timeout_s=interval_s + ANSWER_TIMEOUT_S):
            received += 1
            yield reply
            if until_direct and reply["path"] == "direct" and reply["rtt_ms"] is not None:
                return
        if received < count:
            raise self._stopped()

    def events(
        self, *, last: int | None = None, after: int | None = None, follow: bool = True
    ) -> Iterator[dict[str, Any]]:
        """``schema.EventLine``s that are kept, the ``last`` of them or those ``after`` a number; with
        ``follow`` then each as it happens, and NotRunningError when the node stops."""
        wanted = {"last": last, "after": after, "follow": int(follow)}
        query = urlencode({key: value for key, value in wanted.items() if value is not None})
        timeout_s = None if follow else ANSWER_TIMEOUT_S
        yield from self._stream("GET", f"/events?{query}", None, timeout_s=timeout_s)
        if follow:
            raise self._stopped()

    def wait(
        self, *, peers: int | None = None, peer: str | None = None, timeout_s: float
    ) -> list[dict[str, Any]]:
        """The connected peers, once there are ``peers`` of them or ``peer`` is one. Raises TimedOutError."""
        query: dict[str, str | int | float] = {"timeout_s": timeout_s}
        if peer is not None:
            query["peer"] = peer
        elif peers is not None:
            query["peers"] = peers
        answer = self._ask("GET", f"/wait?{urlencode(query)}", timeout_s=timeout_s + ANSWER_TIMEOUT_S)
        connected: list[dict[str, Any]] = answer["peers"]
        return connected

    def leave(self, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Ask the node to stop and return when its process is gone. Raises TimedOutError."""
        process = _open_process(listening_process(self.path))
        try:
            self._ask("POST", "/leave")
            if not self._ended(process, timeout_s):
                raise TimedOutError(
                    f"{self.name} was told to stop and still runs {timeout_s:g} s later: look at its log"
                )
        finally:
            if process is not None:
                os.close(process)

    def stock_peers(self) -> list[dict[str, Any]]:
        """A ``schema.StockPeer`` each."""
        answer: list[dict[str, Any]] = self._ask("GET", "/stock-peers")["stock_peers"]
        return answer

    def add_stock_peer(self, name: str, public_key: str) -> dict[str, Any]:
        """A ``schema.StockPeerSetup``; ``public_key`` is base64."""
        return self._ask("POST", "/stock-peers", {"name": name, "public_key": public_key})

    def remove_stock_peer(self, name: str) -> None:
        """Raises NotFoundError."""
        self._ask("DELETE", f"/stock-peers/{quote(name, safe='')}")

    def _ended(self, process: int | None, timeout_s: float) -> bool:
        """Whether the node's process ends in time; where it cannot be seen, whether its socket closes."""
        if process is not None:
            readable, _, _ = select.select([process], [], [], timeout_s)
            return bool(readable)
        deadline = time.monotonic() + timeout_s
        while listening_process(self.path) is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(ENDING_POLL_S)
        return True

    def _ask(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> dict[str, Any]:
        connection = _UnixConnection(self.path, timeout_s)
        try:
            response = self._send(connection, method, target, body)
            return self._object(response.read())
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(error) from error
        finally:
            connection.close()

    def _stream(
        self, method: str, target: str, body: Mapping[str, Any] | None, timeout_s: float | None
    ) -> Iterator[dict[str, Any]]:
        connection = _UnixConnection(self.path, timeout_s)
        try:
            response = self._send(connection, method, target, body)
            while line := response.readline():
                item = self._object(line)
                if "error" in item:
                    raise schema.error_of(str(item.get("kind")), str(item["error"]))
                yield item
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(error) from error
        finally:
            connection.close()

    def _send(
        self, connection: http.client.HTTPConnection, method: str, target: str, body: Mapping[str, Any] | None
    ) -> http.client.HTTPResponse:
        content = None if body is None else json.dumps(body).encode()
        headers = {} if content is None else {"Content-Type": "application/json"}
        connection.request(method, schema.API_PREFIX + target, content, headers)
        response = connection.getresponse()
        if response.status >= 400:
            answer = self._object(response.read())
            raise schema.error_of(str(answer.get("kind")), str(answer.get("error")))
        return response

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            value = json.loads(content)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise DhtVpnError(f"what listens on {self.path} is no dhtvpn node, or a very different version")
        return value

    def _failure(self, error: Exception) -> DhtVpnError:
        if isinstance(error, TimeoutError):
            return TimedOutError(f"the node of {self.name} does not answer: look at its log")
        if isinstance(error, PermissionError):
            return not_permitted(self.path)
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return NotRunningError(f"{self.name} is not running here: start it with '{self._start_with}'")
        if isinstance(error, (ConnectionError, http.client.HTTPException)):
            return self._stopped()
        return SystemRefusedError(f"cannot use the control socket {self.path} ({error})")

    def _stopped(self) -> NotRunningError:
        return NotRunningError(f"the node of {self.name} stopped while it was asked")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a Unix socket. ``timeout_s`` None waits as long as the node lives."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost")
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(str(self._path))


def not_permitted(path: Path) -> SystemRefusedError:
    """The sentence for a socket, or its directory, that this user may not use."""
    return SystemRefusedError(
        f"not permitted to use {path}: use sudo, or join the group dhtvpn "
        "(sudo usermod -aG dhtvpn $USER, then log in again)"
    )


def listening_process(path: Path) -> int | None:
    """The process id of the node that listens on ``path`` (0 if it is in another pid namespace).

    None where nobody does. Raises SystemRefusedError when we may not ask.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except PermissionError:
            raise not_permitted(path) from None
        except BlockingIOError:
            return 0  # its backlog is full: somebody listens
        except OSError:
            return None
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
        process_id: int = PEER_CREDENTIALS.unpack(credentials)[0]
        return process_id


def _open_process(process_id: int | None) -> int | None:
    """A descriptor that becomes readable when the process ends (pidfd_open(2)), needing no privilege."""
    if not process_id:
        return None
    try:
        return os.pidfd_open(process_id)
    except OSError:
        return None
