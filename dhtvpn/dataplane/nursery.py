"""The process that engines are forked from: it has the descriptors and the code, and no privilege at all.

The control process cannot start a program as another user once it has given up its privileges. So the
first process that it starts gives up its own, never touches the network, and forks an engine upon each
order. A new engine needs neither privilege nor file system, and is there within milliseconds.

Orders and reports are messages on an AF_UNIX SOCK_SEQPACKET pair (docs/protocol/engine.md).
"""

import array
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Final

from dhtvpn.confinement import kernel
from dhtvpn.errors import DhtVpnError

START: Final = b"start"  # with the engine's end of its own channel
KILL: Final = b"kill"
MAX_ORDER: Final = 64

RunEngine = Callable[[socket.socket], None]


def tend(orders: socket.socket, run_engine: RunEngine) -> None:
    """Fork an engine upon each START, one at a time; end with it when ``orders`` is closed.

    ``run_engine`` runs in the child on the channel that came with the order.
    """
    orders.setblocking(True)
    gc.freeze()  # the children share these pages
    engine: _Child | None = None
    while True:
        waiting = [orders.fileno(), *([engine.watch] if engine is not None else [])]
        ready, _, _ = select.select(waiting, [], [])
        if engine is not None and engine.watch in ready:
            code = engine.collect()
            engine = None
            orders.send(b"ended %d" % code)
        if orders.fileno() not in ready:
            continue
        order, channel = _receive(orders)
        if order == START and channel is not None and engine is None:
            engine = _Child(orders, channel, run_engine)
            orders.send(b"started %d" % engine.pid)
        elif order == KILL and engine is not None:
            engine.kill()
        elif not order:
            if engine is not None:
                engine.kill()
                engine.collect()
            return


class _Child:
    """A forked engine. ``watch`` is readable when it has ended."""

    def __init__(self, orders: socket.socket, channel: socket.socket, run_engine: RunEngine) -> None:
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                orders.close()
                code = _live(channel, parent, run_engine)
            finally:
                os._exit(code)
        channel.close()
        self.watch = os.pidfd_open(self.pid)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)  # not collected yet, so the number is still its own

    def collect(self) -> int:
        """Wait for its end; its exit code, negative: the signal."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.watch)
        return os.waitstatus_to_exitcode(status)


def _live(channel: socket.socket, parent: int, run_engine: RunEngine) -> int:
    if not kernel.die_with_parent(parent):
        return 0
    try:
        run_engine(channel)
    except DhtVpnError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 - the control process logs our stderr
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _receive(orders: socket.socket) -> tuple[bytes, socket.socket | None]:
    """An order and the descriptor that came with it. Empty: the control process is gone."""
    space = socket.CMSG_SPACE(array.array("i").itemsize)
    try:
        order, ancillary, _, _ = orders.recvmsg(MAX_ORDER, space)
    except OSError:
        return b"", None
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return order, socket.socket(fileno=int.from_bytes(data[:4], sys.byteorder))
    return order, None
