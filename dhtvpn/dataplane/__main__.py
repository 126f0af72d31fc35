"""The engine process: ``python -m dhtvpn.dataplane --control-fd N --tun-fd N``, and ``--udp4-fd N`` and
``--udp6-fd N`` for every UDP socket.

Started by ``starter.EngineStarter`` with the descriptors open; the engine itself is forked from it
(``nursery``), and gets keys and addresses over a channel of its own only. Exits 0 when the control
descriptor is closed. An engine exits 0 when its channel is closed, 1 with one line on stderr when it
cannot go on.

asyncio, pyroute2 and argparse are not imported: what this process imports is what a start costs.
"""

import contextlib
import gc
import os
import socket
import sys

from dhtvpn.confinement import kernel
from dhtvpn.dataplane import confine
from dhtvpn.dataplane.channel import ControlChannel
from dhtvpn.dataplane.device import DescriptorDevice
from dhtvpn.dataplane.engine import Engine
from dhtvpn.dataplane.loop import serve
from dhtvpn.dataplane.messages import Ready
from dhtvpn.dataplane.nursery import tend
from dhtvpn.dataplane.offloads import has_aes_instructions, socket_offloads
from dhtvpn.dataplane.sockets import prepare
from dhtvpn.errors import DhtVpnError, UsageError

PRIORITY = -10
"""Ours, the nice value of engines: packets that wait for a processor behind the very programs that send them
make long queues. An engine that has nothing to do takes nothing."""

_DESCRIPTORS = ("--control-fd", "--tun-fd", "--udp4-fd", "--udp6-fd")


def main(arguments: list[str]) -> int:
    """Run the engine; returns the exit code."""
    parent = os.getppid()
    try:
        options = parse_arguments(arguments)
        run(options, receive="--send-only" not in arguments, parent=parent)
    except DhtVpnError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the control process logs our stderr
        return 1
    return 0


def parse_arguments(arguments: list[str]) -> dict[str, list[int]]:
    """Descriptors by option name, in their order. Raises UsageError."""
    rest = iter(argument for argument in arguments if argument != "--send-only")
    options: dict[str, list[int]] = {}
    for name in rest:
        value = next(rest, "")
        if name not in _DESCRIPTORS or not (value.isascii() and value.isdigit()):
            raise UsageError(f"the engine is started by dhtvpn itself, with {', '.join(_DESCRIPTORS)}")
        options.setdefault(name, []).append(int(value))
    if len(options.get("--control-fd", ())) != 1 or len(options.get("--tun-fd", ())) != 1:
        raise UsageError("the engine needs --control-fd and --tun-fd")
    return options


def run(options: dict[str, list[int]], *, receive: bool, parent: int) -> None:
    """Set up, give up privileges, and fork an engine whenever the control process orders one.

    ``receive`` False: the sockets only send.
    """
    (control,), (tun,) = options["--control-fd"], options["--tun-fd"]
    orders = socket.socket(fileno=control)
    lanes = [
        [socket.socket(fileno=descriptor) for descriptor in options[name]]
        for name in ("--udp4-fd", "--udp6-fd")
        if name in options
    ]
    first = [family[0] for family in lanes]
    sockets = [sock for family in lanes for sock in family]
    segments = {int(sock.family): prepare(sock, receive and sock in first) for sock in sockets}
    device = DescriptorDevice(tun)
    offloads = [*device.offloads, *socket_offloads(first, segments.values(), receive=receive)]
    if has_aes_instructions():
        offloads.append("aes")
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    confine.drop_privileges()
    confine.leave_file_system()  # from here on nothing is imported or opened
    if not kernel.die_with_parent(parent):
        return

    def run_engine(connected: socket.socket) -> None:
        """One engine, in a process of its own: say Ready and serve."""
        channel = ControlChannel(connected)
        engine = Engine(device=device, sockets=sockets, segments=segments, emit=channel.send)
        channel.drops = engine.drops
        channel.send(Ready(tuple(offloads)))
        serve(engine, channel, tun, first if receive else ())

    gc.collect()
    gc.freeze()  # an engine shares with us what it does not change: collecting would count as that
    tend(orders, run_engine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
