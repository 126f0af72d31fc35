"""The control side of ``nursery``: start it once, while privileged, and have engines forked from it.

No thread and no asyncio child watcher: a thread would keep the privileges that its process gives up.
"""

import array
import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from dhtvpn.dataplane.nursery import KILL, MAX_ORDER, START
from dhtvpn.errors import SystemRefusedError

log = logging.getLogger(__name__)

END_TIMEOUT_S = 2.0  # ours: how long it may take to notice that we closed our end
MAX_LOG_LINE = 500  # characters of one line of an engine's stderr
READ_SIZE = 4096  # bytes of stderr at a time
DIED = 1  # the code of an engine that went with the process that it was forked from

_ENVIRONMENT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


class Child:
    """An engine process as its starter knows it. ``ended`` gets the exit code (negative: the signal)."""

    def __init__(self, pid: int, ended: asyncio.Future[int], kill: Callable[[], None]) -> None:
        self.pid = pid
        self.ended = ended
        self.kill = kill


class EngineStarter:
    """Starts engines, one at a time. Made once, before privileges are given up; :meth:`close` ends all."""

    def __init__(self, tun_fd: int, sockets: Sequence[socket.socket], *, receive: bool) -> None:
        """Start the process on the device ``tun_fd`` and UDP sockets; the first of each family receives.

        ``receive`` False: the sockets are for sending only. The descriptors stay the caller's.
        Raises SystemRefusedError.
        """
        self._loop = asyncio.get_running_loop()
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stderr, stderr = os.pipe()
        try:
            self._process = _spawn(theirs.fileno(), stderr, tun_fd, sockets, receive)
        except OSError as error:
            self._orders.close()
            os.close(self._stderr)
            raise SystemRefusedError(f"cannot start the engine process ({error.strerror})") from error
        finally:
            theirs.close()
            os.close(stderr)
        self._partial = b""
        self._starting: asyncio.Future[int] | None = None
        self._ended: asyncio.Future[int] | None = None
        self._gone: asyncio.Future[int] = self._loop.create_future()
        self._watch = os.pidfd_open(self._process.pid)
        self._orders.setblocking(False)
        os.set_blocking(self._stderr, False)
        self._loop.add_reader(self._orders, self._report)
        self._loop.add_reader(self._stderr, self._read_stderr)
        self._loop.add_reader(self._watch, self._process_ended)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can start another engine."""
        return not self._gone.done()

    async def start(self, channel: socket.socket) -> Child:
        """A new engine on its end of ``channel``, when the last one has ended. Raises SystemRefusedError."""
        if not self.alive:
            raise SystemRefusedError(f"the engine process ended at once (exit code {self._gone.result()})")
        self._starting, self._ended = self._loop.create_future(), self._loop.create_future()
        rights = array.array("i", [channel.fileno()])
        with suppress(OSError):  # where it has just ended, _process_ended will say so
            self._orders.sendmsg([START], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        pid = await self._starting
        return Child(pid, self._ended, self._kill)

    async def close(self) -> None:
        """End the process and its engine, and wait for it. Safe to repeat."""
        self._shut(self._orders)
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await asyncio.shield(self._gone)
        except TimeoutError:
            # Confined, we may not signal another user; then the kernel ends it when we end.
            with suppress(PermissionError, ProcessLookupError):
                self._process.kill()
                await self._gone

    def _kill(self) -> None:
        with suppress(OSError):
            self._orders.send(KILL)

    def _report(self) -> None:
        """``started PID`` or ``ended CODE``."""
        try:
            word, _, number = self._orders.recv(MAX_ORDER).partition(b" ")
        except BlockingIOError:
            return
        except OSError:
            word = b""
        if not word:
            self._shut(self._orders)
        elif word == b"started" and self._starting is not None and not self._starting.done():
            self._starting.set_result(int(number))
        elif word == b"ended":
            self._read_stderr()  # what the engine has said comes before its end
            self._engine_ended(int(number))

    def _engine_ended(self, code: int) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(code)

    def _process_ended(self) -> None:
        self._loop.remove_reader(self._watch)
        os.close(self._watch)
        code = self._process.wait()
        self._read_stderr()
        self._loop.remove_reader(self._stderr)
        os.close(self._stderr)
        self._shut(self._orders)
        self._gone.set_result(code)
        if self._starting is not None and not self._starting.done():
            sentence = f"the engine process ended at once (exit code {code})"
            self._starting.set_exception(SystemRefusedError(sentence))
            self._starting.exception()  # whoever waits gets it; nobody waiting is no mistake
        else:
            self._engine_ended(code or DIED)

    def _read_stderr(self) -> None:
        """Log what has been written, line by line."""
        while True:
            try:
                data = os.read(self._stderr, READ_SIZE)
            except (BlockingIOError, InterruptedError):
                return
            if not data:
                if self._partial:
                    self._partial, lines = b"", [self._partial]
                else:
                    self._loop.remove_reader(self._stderr)
                    return
            else:
                *lines, self._partial = (self._partial + data).split(b"\n")
                self._partial = self._partial[:MAX_LOG_LINE]
            for line in lines:
                log.error("engine: %s", line.decode(errors="replace").rstrip()[:MAX_LOG_LINE])

    def _shut(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_reader(sock)
            sock.close()


def _spawn(
    control: int, stderr: int, tun: int, sockets: Sequence[socket.socket], receive: bool
) -> "subprocess.Popen[bytes]":
    arguments = ["--control-fd", str(control), "--tun-fd", str(tun)]
    for sock in sockets:
        arguments += ["--udp6-fd" if sock.family == socket.AF_INET6 else "--udp4-fd", str(sock.fileno())]
    if not receive:
        arguments.append("--send-only")
    return subprocess.Popen(
        [
            sys.executable,
            "-P",  # nothing is imported from the directory that root happens to stand in
            "-s",
            "-m",
            "dhtvpn.dataplane",
            *arguments,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        pass_fds=(control, tun, *(sock.fileno() for sock in sockets)),
        start_new_session=True,  # Ctrl-C is for the control process, which ends the engine in order
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    )
