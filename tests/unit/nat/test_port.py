"""The port on loopback: sockets of the kernel, no other machine."""

import asyncio
import errno
import select
import socket
import time
from collections import Counter
from collections.abc import Callable

import pytest

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import SystemRefusedError
from dhtvpn.nat import port as port_module
from dhtvpn.nat import port_sockets, reading
from dhtvpn.nat.demux import DHT_PREFIX
from dhtvpn.nat.port import READ_BATCH, UdpPort
from dhtvpn.nat.port_sockets import LANES
from dhtvpn.nat.socket_filter import source_key

HOSTS = ["127.0.0.1", "::1"]
STUN_BINDING = bytes.fromhex("000100002112a442") + bytes(12)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is a counter, not an event
            await asyncio.sleep(0.001)


def receiving(port: UdpPort) -> list[socket.socket]:
    """The engine's sockets that are for more than sending: the first of each family."""
    return [next(s for s in port.engine_sockets if s.family == f) for f in (socket.AF_INET, socket.AF_INET6)]


def read(engine: socket.socket) -> bytes:
    assert select.select([engine], [], [], 5)[0], "nothing arrived on the engine's socket"
    return engine.recv(2048)


@pytest.mark.parametrize("host", HOSTS)
async def test_data_messages_reach_the_engine_and_all_else_the_control_process(open_port, host) -> None:
    port = await open_port(host_v4="0.0.0.0", host_v6="::", tunnel_sockets=True)
    sender = await open_port()
    assert port.kernel_demux
    control: list[bytes] = []
    stray: list[bytes] = []
    port.on_tunnel(lambda data, source: control.append(data))
    port.on_dht(lambda data, source: control.append(data))
    port.on_data(lambda data, source: stray.append(data))
    port.stun.on_binding_request(lambda message, source: control.append(b"stun"))
    target = Endpoint(host, port.port)
    engine = next(s for s in port.engine_sockets if (s.family == socket.AF_INET6) == (":" in host))

    for kind in (4, 5):
        sender.send(bytes([kind, 0, 0, 0]) + b"data", target)
        assert read(engine) == bytes([kind, 0, 0, 0]) + b"data"
    for kind in (1, 2, 3):
        sender.send(bytes([kind, 0, 0, 0]), target)
    sender.send(STUN_BINDING, target)
    sender.send_dht(b"dht", target)
    await until(lambda: len(control) == 5)

    assert control == [b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"stun", b"dht"]
    assert stray == []
    with pytest.raises(BlockingIOError):
        engine.recv(1)


async def test_every_source_port_is_steered_by_the_first_byte_not_by_hash(open_port) -> None:
    port = await open_port(tunnel_sockets=True)
    control: list[bytes] = []
    port.on_tunnel(lambda data, source: control.append(data))
    for _ in range(64):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"\4\0\0\0", ("127.0.0.1", port.port))
            sender.sendto(b"\1\0\0\0", ("127.0.0.1", port.port))
    await until(lambda: len(control) == 64)
    assert [read(port.engine_sockets[0]) for _ in range(64)] == [b"\4\0\0\0"] * 64


async def test_the_engine_sends_from_the_same_port(open_port) -> None:
    port, receiver = await open_port(tunnel_sockets=True), await open_port()
    sources: list[Endpoint] = []
    receiver.on_tunnel(lambda data, source: sources.append(source))
    for lane in port.engine_sockets[: 1 + LANES]:
        lane.sendto(b"\1\0\0\0", ("127.0.0.1", receiver.port))
    await until(lambda: len(sources) == 1 + LANES)
    assert set(sources) == {Endpoint("127.0.0.1", port.port)}


async def test_without_the_kernels_filter_data_messages_come_to_on_data(open_port, monkeypatch) -> None:
    def refuse(member: socket.socket) -> None:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    monkeypatch.setattr(port_sockets, "attach_filter", refuse)
    port, sender = await open_port(tunnel_sockets=True), await open_port()
    data: list[bytes] = []
    port.on_data(lambda datagram, source: data.append(datagram))
    for host in HOSTS:
        for kind in (4, 5):
            sender.send(bytes([kind, 0, 0, 0]), Endpoint(host, port.port))
    await until(lambda: len(data) == 4)
    assert not port.kernel_demux
    assert len(port.engine_sockets) == 2
    assert port.engine_sockets[0].getsockname()[1] == port.port


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("tunnel_sockets", [False, True])
async def test_a_port_in_use_is_refused_even_when_the_other_would_share(tunnel_sockets, reuse) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        if reuse:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        number = other.getsockname()[1]
        with pytest.raises(SystemRefusedError) as refused:
            await UdpPort.open(number, drops=Drops(), tunnel_sockets=tunnel_sockets)
    assert str(refused.value) == (
        f"UDP port {number} is in use by another program: choose another with --port"
    )


async def test_two_ports_of_ours_do_not_share(open_port) -> None:
    first = await open_port(tunnel_sockets=True)
    with pytest.raises(SystemRefusedError, match="in use"):
        await open_port(first.port, tunnel_sockets=True)


@pytest.mark.parametrize("number", [None, 0])
async def test_a_free_port_is_the_same_on_both_families(open_port, number) -> None:
    port = await open_port(number, tunnel_sockets=True)
    assert port.families == (4, 6)
    assert {s.getsockname()[1] for s in port.engine_sockets} == {port.port}
    assert [s.family for s in port.engine_sockets] == [
        *[socket.AF_INET] * (1 + LANES),
        *[socket.AF_INET6] * (1 + LANES),
    ]


@pytest.mark.parametrize(("missing", "left"), [(socket.AF_INET6, (4,)), (socket.AF_INET, (6,))])
async def test_a_machine_with_one_family_goes_on_with_it(monkeypatch, missing, left) -> None:
    real = socket.socket

    def without_family(family: int, kind: int) -> socket.socket:
        if family == missing:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, kind)

    monkeypatch.setattr(port_sockets.socket, "socket", without_family)
    port = await UdpPort.open(None, drops=Drops(), tunnel_sockets=True)
    monkeypatch.undo()
    assert port.families == left
    assert len(port.engine_sockets) == 1 + LANES
    assert not port.send(b"x", Endpoint("::1" if left == (4,) else "127.0.0.1", 9))
    assert port.drops.as_dict() == {"port.send_no_family": 1}
    port.close()


async def test_an_address_of_another_machine_is_refused_by_name() -> None:
    with pytest.raises(SystemRefusedError, match=r"192\.0\.2\.77 is not an address of this machine"):
        await UdpPort.open(None, "192.0.2.77", None, drops=Drops(), tunnel_sockets=False)


async def test_no_family_at_all_is_refused() -> None:
    with pytest.raises(SystemRefusedError, match="neither IPv4 nor IPv6"):
        await UdpPort.open(None, None, None, drops=Drops(), tunnel_sockets=False)


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (Endpoint("127.0.0.1", 0), "port.send_failed"),
        (Endpoint("127.0.0.1", 70000), "port.send_failed"),
        (Endpoint("localhost", 9), "port.send_failed"),
        (Endpoint("a\0b", 9), "port.send_failed"),
        (Endpoint("127.0.0.1", -1), "port.send_failed"),
    ],
)
async def test_an_endpoint_that_is_none_is_counted_and_never_raises(open_port, endpoint, reason) -> None:
    port = await open_port()
    assert port.send(b"x", endpoint) is False
    assert port.drops.as_dict() == {reason: 1}


class RefusingSocket(socket.socket):
    """A real socket whose sends all fail with one error: nothing leaves the machine."""

    error = 0

    def sendto(self, *args: object) -> int:
        raise OSError(self.error, "refused")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errno.EAGAIN, "port.send_buffer_full"),
        (errno.ENOBUFS, "port.send_buffer_full"),
        (errno.ENETUNREACH, "port.send_unreachable"),
        (errno.EHOSTUNREACH, "port.send_unreachable"),
        (errno.EPERM, "port.send_refused"),
        (errno.EACCES, "port.send_refused"),
        (errno.EMSGSIZE, "port.send_too_long"),
        (errno.EINVAL, "port.send_failed"),
    ],
)
async def test_what_the_kernel_refuses_is_counted_and_never_raises(error, reason) -> None:
    refusing = RefusingSocket(socket.AF_INET, socket.SOCK_DGRAM)
    refusing.setblocking(False)
    refusing.error = error
    port = UdpPort(port_sockets.PortSockets(9, {4: refusing}), Drops())
    assert port.send(b"x", Endpoint("127.0.0.1", 9)) is False
    assert port.drops.as_dict() == {reason: 1}
    port.close()


async def test_a_datagram_that_is_too_long_is_counted(open_port) -> None:
    port = await open_port()
    assert port.send(bytes(65536), Endpoint("127.0.0.1", 9)) is False
    assert port.drops.as_dict() == {"port.send_too_long": 1}


async def test_unknown_and_unclaimed_datagrams_are_counted(open_port) -> None:
    port, sender = await open_port(), await open_port()
    target = Endpoint("127.0.0.1", port.port)
    for data in (b"", b"garbage", b"d" * 60, b"\4\0\0\0", bytes([DHT_PREFIX, 1])):
        sender.send(data, target)
    await until(lambda: port.drops.total() == 5)
    assert port.drops.as_dict() == {"port.no_handler": 2, "port.unknown": 3}


async def test_a_flood_leaves_the_loop_its_turn(open_port) -> None:
    port, sender = await open_port(), await open_port()
    seen: list[int] = []
    per_turn: list[int] = []
    port.on_tunnel(lambda data, source: seen.append(1))
    for _ in range(4 * READ_BATCH):
        sender.send(b"\1\0\0\0", Endpoint("127.0.0.1", port.port))
    while len(seen) < 4 * READ_BATCH:
        before = len(seen)
        await asyncio.sleep(0)
        per_turn.append(len(seen) - before)
    assert max(per_turn) <= READ_BATCH


async def test_the_kernel_drops_what_nobody_takes_and_the_port_tells_how_much(open_port) -> None:
    port, sender = await open_port(tunnel_sockets=True), await open_port()
    control: list[bytes] = []
    port.on_tunnel(lambda data, source: control.append(data))
    port.filter_in_kernel(0xBEEF)
    initiation = b"\1\0\0\0" + bytes(144)
    mine, strange = (b"\4\0\0\0\1\0" + tag + bytes(24) for tag in (b"\xef\xbe", b"\xef\xbf"))
    for host in HOSTS:
        for data in (b"garbage", b"\1\0\0\0", strange, mine, initiation):
            sender.send(data, Endpoint(host, port.port))
    await until(lambda: len(control) == 2)
    assert control == [initiation] * 2
    for engine in receiving(port):
        assert read(engine) == mine
        with pytest.raises(BlockingIOError):
            engine.recv(1)
    port.count_kernel_drops()
    assert port.drops.as_dict() == {"port.kernel": 4, "port.kernel_data": 2}


async def test_a_flood_is_read_in_part_its_source_thinned_and_all_is_well_afterwards(
    open_port, monkeypatch
) -> None:
    monkeypatch.setattr(port_module, "WINDOW_S", 0.1)
    monkeypatch.setattr(reading, "WINDOW_S", 0.1)
    monkeypatch.setattr(reading, "FAIR_PER_WINDOW", 5)
    monkeypatch.setattr(reading, "BURST_S", 0.002)
    monkeypatch.setattr(reading, "SHARE", 0.005)
    port, sender, other = await open_port(), await open_port(), await open_port()
    read_of: Counter[int] = Counter()
    port.on_tunnel(lambda data, source: read_of.update((source.port,)))
    port.filter_in_kernel(0xBEEF)
    target, initiation = Endpoint("127.0.0.1", port.port), b"\1\0\0\0" + bytes(144)
    sent = 0
    async with asyncio.timeout(20):
        while not port._thinning.sources:
            for _ in range(1000):
                sender.send(initiation, target)
            sent += 1000
            await asyncio.sleep(0.001)
    assert set(port._thinning.sources) == {source_key("127.0.0.1")}
    assert read_of[sender.port] < sent
    await until(lambda: port._review is None)
    assert port._thinning.sources == {}
    other.send(initiation, target)
    await until(lambda: read_of[other.port] == 1)


async def test_closing_while_it_pauses_leaves_no_timer(open_port) -> None:
    port, sender = await open_port(), await open_port()
    port._budget.spend(1.0, time.monotonic())
    sender.send(b"garbage", Endpoint("127.0.0.1", port.port))
    await until(lambda: port.drops.total() == 1)
    resume = port._resume
    assert resume is not None
    port.close()
    assert resume.cancelled()


async def test_closing_twice_releases_the_port_for_the_next(open_port) -> None:
    port = await open_port(tunnel_sockets=True)
    port.close()
    port.close()
    assert port.send(b"x", Endpoint("127.0.0.1", 9)) is False
    again = await open_port(port.port)
    assert again.port == port.port


@pytest.mark.parametrize(
    ("host", "data", "taken"),
    [
        ("fe80:3::1", STUN_BINDING, True),
        ("fe80:3::1", b"\x01\0\0\0", True),
        ("fe80::1", STUN_BINDING, False),
        ("fe80:3::1", bytes([DHT_PREFIX]) + b"dht", False),
    ],
    ids=["check", "handshake", "no zone", "DHT"],
)
async def test_a_link_local_address_is_for_paths_between_neighbours(open_port, host, data, taken) -> None:
    port = await open_port()
    got: list[Endpoint] = []
    for register in (port.on_stun, port.on_tunnel, port.on_dht):
        register(lambda data, source: got.append(source))
    port._handle_datagram(data, Endpoint(host, 7), [])
    assert got == ([Endpoint(host, 7)] if taken else [])
    assert port.drops.as_dict() == ({} if taken else {"port.link_local": 1})


async def test_what_goes_to_a_neighbour_leaves_on_its_interface(open_port, monkeypatch) -> None:
    port = await open_port()
    sent: list[object] = []

    class Control:
        family = socket.AF_INET6

        def sendto(self, data: bytes, address: object) -> None:
            sent.append(address)

    monkeypatch.setitem(port._sockets.control, 6, Control())
    assert port.answer(b"x", Endpoint("fe80:3::1", 7)) and port.answer(b"x", Endpoint("2001:db8::1", 7))
    monkeypatch.undo()
    assert sent == [("fe80::1", 7, 0, 3), ("2001:db8::1", 7, 0, 0)]
