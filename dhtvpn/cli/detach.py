"""Start a node in the background and wait until it is ready: both sides of one pipe.

The child is a session of its own, with stdin from /dev/null and its output in the log file. It writes
one JSON object per line into the pipe: ``{"kind", "text"}`` for progress, ``{"ready": true}``, or
``{"error", "exit_code"}``. Its number comes in the environment, so ``ps`` shows only names.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dhtvpn.cli import logs
from dhtvpn.cli.exits import exit_code_of
from dhtvpn.errors import (
    DhtVpnError,
    NotRunningError,
    SystemRefusedError,
    TimedOutError,
    UsageError,
)

PIPE_VARIABLE = "DHTVPN_READY_FD"
READY_TIMEOUT_S = 30.0  # ours: a node is ready in about a second; a machine under load takes longer
STOP_TIMEOUT_S = 5.0
BY_EXIT_CODE = {2: UsageError, 3: NotRunningError, 4: TimedOutError}


def start(
    arguments: list[str],
    log_file: Path,
    progress: Callable[[str, str], None],
    timeout_s: float = READY_TIMEOUT_S,
) -> int:
    """Run ``dhtvpn ARGUMENTS`` in the background; return its process id when it is ready.

    Raises the error that the child reported, DhtVpnError when it died without a word, TimedOutError
    (the child is ended then, as it is on Ctrl-C).
    """
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        try:
            child = _spawn(arguments, log_file, writer)
        finally:
            os.close(writer)
        try:
            _await_ready(child, pipe.fileno(), log_file, progress, timeout_s)
        except BaseException:
            _stop(child)
            raise
    child.returncode = 0  # it lives on without us: nothing for Popen's finaliser to complain about
    return child.pid


def _spawn(arguments: list[str], log_file: Path, writer: int) -> "subprocess.Popen[bytes]":
    try:
        descriptor = os.open(log_file, logs.OPEN_FLAGS, 0o600)
    except OSError as error:
        raise SystemRefusedError(f"cannot write the log {log_file} ({error.strerror})") from error
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "dhtvpn", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd="/",
            env={**os.environ, PIPE_VARIABLE: str(writer)},
            pass_fds=(writer,),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


def _await_ready(
    child: "subprocess.Popen[bytes]",
    pipe: int,
    log_file: Path,
    progress: Callable[[str, str], None],
    timeout_s: float,
) -> None:
    deadline = time.monotonic() + timeout_s
    for message in _messages(pipe, deadline):
        if message is None:
            raise TimedOutError(f"the node was not ready after {timeout_s:g} s: its log is {log_file}")
        if message.get("ready"):
            return
        if "error" in message:
            kind = BY_EXIT_CODE.get(message["exit_code"], DhtVpnError)
            raise kind(message["error"])
        progress(str(message["kind"]), str(message["text"]))
    with suppress(subprocess.TimeoutExpired):
        child.wait(STOP_TIMEOUT_S)
    raise DhtVpnError(
        f"the node stopped before it was ready (exit code {child.returncode}): its log is {log_file}"
    )


def _messages(pipe: int, deadline: float) -> Iterator[dict[str, Any] | None]:
    """The child's lines; None when the deadline passes; ends when the child closes the pipe."""
    waiting = b""
    while True:
        readable, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            yield None
            return
        received = os.read(pipe, 65536)
        if not received:
            return
        *lines, waiting = (waiting + received).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _stop(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Parent:
    """The child's end of the pipe. A parent that has gone is no reason to stop."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        os.set_inheritable(descriptor, False)  # the engine process must not hold it open

    def report(self, kind: str, text: str) -> None:
        """Pass one line of progress on, until the node is ready."""
        self._write({"kind": kind, "text": text})

    def ready(self) -> None:
        """Tell that the node is ready, and let the parent go."""
        self._write({"ready": True})
        self.close()

    def failed(self, error: DhtVpnError) -> None:
        """Tell why the node is not going to be ready."""
        self._write({"error": str(error), "exit_code": exit_code_of(error)})
        self.close()

    def close(self) -> None:
        """Close the pipe. Safe to repeat."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, message: dict[str, Any]) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.write(self._descriptor, json.dumps(message).encode() + b"\n")


def parent_waiting() -> Parent | None:
    """The parent that started us with :func:`start`, where there is one."""
    number = os.environ.pop(PIPE_VARIABLE, "")
    return Parent(int(number)) if number.isdigit() else None


@contextmanager
def telling(parent: Parent | None) -> Iterator[None]:
    """Pass an error of the tree on to the parent that still waits, and close the pipe in any case."""
    try:
        yield
    except DhtVpnError as error:
        if parent is not None:
            parent.failed(error)
        raise
    finally:
        if parent is not None:
            parent.close()
