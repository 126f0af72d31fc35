"""Which sizes get through: the question, who answers it, and the search."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhtvpn.endpoint import Endpoint
from dhtvpn.nat import filter_test, path_size, size_test
from dhtvpn.nat.path_size import BETWEEN, IPV4_HEADERS, IPV6_HEADERS, LIKELY, ROUNDS, path_mtu, search
from dhtvpn.nat.plain_stun import PlainStunService
from dhtvpn.nat.socket_filter import STUN_MOST
from dhtvpn.nat.stun_limit import SOURCE_BURST
from dhtvpn.nat.stun_service import StunService

ID = bytes(range(12))
SERVICES = [StunService, PlainStunService]


def test_the_question_byte_for_byte() -> None:
    assert size_test.request(ID, 64).hex() == "0001002c2112a442" + ID.hex() + "00260028" + "00" * 40
    for size in (size_test.LEAST, 160, size_test.MOST):
        assert len(size_test.request(ID, size)) == size
        assert size_test.transaction_of(size_test.request(ID, size)) == ID


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4, 7, 20, 21, 22, 23])
def test_anything_else_is_no_question(position: int) -> None:
    changed = bytearray(size_test.request(ID, 200))
    changed[position] ^= 1
    assert size_test.transaction_of(bytes(changed)) is None


@pytest.mark.parametrize("size", [0, 20, 60, 61, 62, 1476, 1500])
def test_neither_short_nor_long(size: int) -> None:
    assert size_test.transaction_of(size_test.request(ID, 1500)[:size]) is None


@given(st.binary(max_size=1600))
def test_whatever_comes_it_does_not_raise(data: bytes) -> None:
    whole = size_test.request(ID, 64)
    for datagram in (data, whole[:20] + data, whole[:24] + data):
        name = size_test.transaction_of(datagram)
        assert name is None or (name == datagram[8:20] and len(datagram) >= size_test.LEAST)


def test_what_the_padding_holds_does_not_matter() -> None:
    assert size_test.transaction_of(size_test.request(ID, 64)[:24] + b"\xff" * 40) == ID


def test_the_kernel_lets_the_longest_in() -> None:
    assert STUN_MOST == size_test.MOST
    assert max(LIKELY) == size_test.MOST + IPV4_HEADERS


def test_all_rounds_stay_below_a_servers_limit() -> None:
    assert ROUNDS * (len(LIKELY) + 1) < SOURCE_BURST
    assert ROUNDS * (BETWEEN + 1) < SOURCE_BURST


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_node_answers_with_less_than_it_was_asked(open_port, service, host) -> None:
    port = await open_port()
    answers: list[bytes] = []
    served = service(port)
    send = port.answer
    port.answer = lambda data, endpoint: answers.append(data) or send(data, endpoint)
    port.filter_in_kernel(0x1234)
    assert await path_mtu(Endpoint(host, port.port)) == max(LIKELY)
    assert answers and {len(answer) for answer in answers} == {44 if host == "::1" else 32}
    assert max(map(len, answers)) < size_test.LEAST
    assert served.answered == len(answers)


async def test_a_limited_source_gets_no_answer(open_port, monkeypatch) -> None:
    monkeypatch.setattr(path_size, "LONGEST_WAIT_S", 0.02)
    port = await open_port()
    service = StunService(port)
    monkeypatch.setattr(service._limit, "allows", lambda host, now: False)
    assert await path_mtu(Endpoint("127.0.0.1", port.port)) is None
    assert port.drops.as_dict()["stun.rate"] == ROUNDS * (len(LIKELY) + 1)


async def test_who_says_nothing_tells_nothing(open_port, monkeypatch) -> None:
    monkeypatch.setattr(path_size, "LONGEST_WAIT_S", 0.02)
    silent = await open_port()
    assert await path_mtu(Endpoint("127.0.0.1", silent.port)) is None


class Path:
    """A channel to a server behind a narrow place. ``loses``: whether the n-th datagram is lost anyhow."""

    def __init__(self, mtu: int, headers: int, loses: Callable[[int], bool] = lambda number: False) -> None:
        self.mtu, self.headers, self.loses = mtu, headers, loses
        self.sent = 0
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, data: bytes) -> bool:
        self.sent += 1
        assert len(data) % 4 == 0
        name = size_test.transaction_of(data)
        assert name is not None
        if len(data) + self.headers <= self.mtu and not self.loses(self.sent):
            self._answers.put_nowait(bytes(8) + name + bytes(12))
        return len(data) + self.headers <= 1500

    async def receive(self) -> bytes:
        return await self._answers.get()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_size, "LONGEST_WAIT_S", 0.02)
    monkeypatch.setattr(path_size, "LEAST_WAIT_S", 0.005)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("headers", [IPV4_HEADERS, IPV6_HEADERS])
@pytest.mark.parametrize("mtu", [1500, 1492, 1480, 1472, 1450, 1420, 1400, 1380, 1300, 1280])
async def test_the_search_comes_close(mtu: int, headers: int) -> None:
    path = Path(mtu, headers)
    found = await search(path, headers)
    assert found is not None and mtu - 12 < found <= mtu
    assert path.sent < SOURCE_BURST


@pytest.mark.usefixtures("patient")
async def test_what_is_likely_is_found_exactly() -> None:
    for mtu in LIKELY:
        assert await search(Path(mtu, IPV4_HEADERS), IPV4_HEADERS) == mtu


@pytest.mark.usefixtures("patient")
async def test_a_tiny_path() -> None:
    found = await search(Path(576, IPV4_HEADERS), IPV4_HEADERS)
    assert found is not None and 400 < found <= 576


@pytest.mark.usefixtures("patient")
async def test_one_lost_datagram_changes_nothing() -> None:
    for lost in range(1, 9):
        path = Path(1500, IPV4_HEADERS, lambda number, lost=lost: number == lost)
        assert await search(path, IPV4_HEADERS) == 1500


@pytest.mark.usefixtures("patient")
async def test_a_server_that_cuts_us_off_does_not_make_the_path_narrow() -> None:
    path = Path(1500, IPV4_HEADERS, lambda number: number > 3)
    assert await search(path, IPV4_HEADERS) == 1500


@pytest.mark.usefixtures("patient")
async def test_garbage_in_answer_ends_nothing() -> None:
    path = Path(1400, IPV4_HEADERS)
    for garbage in (b"", b"\x00", bytes(44)):
        path._answers.put_nowait(garbage)
    assert await search(path, IPV4_HEADERS) == 1400


@pytest.mark.usefixtures("patient")
async def test_a_server_that_sends_on_and_on_ends_nothing() -> None:
    class Babbling(Path):
        async def receive(self) -> bytes:
            return bytes(32)

    assert await search(Babbling(1400, IPV4_HEADERS), IPV4_HEADERS) is None


def test_a_filter_test_is_no_size_test() -> None:
    assert size_test.transaction_of(filter_test.request(ID)) is None
    assert filter_test.transaction_of(size_test.request(ID, filter_test.REQUEST_SIZE)) is None
