"""The STUN service: what it answers, and how much."""

from aioice import stun

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.nat import stun_limit
from dhtvpn.nat.stun_limit import MAX_SOURCES, SOURCE_BURST, TOTAL_BURST, SourceLimit
from dhtvpn.nat.stun_messages import binding_request, mapped_endpoint, parse
from dhtvpn.nat.stun_router import StunRouter
from dhtvpn.nat.stun_service import StunService

SOURCE = Endpoint("192.0.2.1", 1000)


class SilentPort:
    """A port that keeps what it is given to send."""

    def __init__(self) -> None:
        self.drops = Drops()
        self.stun = StunRouter(self.drops)
        self.sent: list[tuple[bytes, Endpoint]] = []

    def answer(self, data: bytes, endpoint: Endpoint) -> bool:
        self.sent.append((data, endpoint))
        return True


def test_it_says_where_the_question_came_from() -> None:
    port = SilentPort()
    StunService(port, clock=lambda: 0.0)
    for source in (SOURCE, Endpoint("2001:db8::1", 2000)):
        port.stun.handle_datagram(binding_request(b"t" * 12), source)
        answer, destination = port.sent[-1]
        assert destination == source
        assert parse(answer).transaction_id == b"t" * 12
        assert mapped_endpoint(parse(answer)) == source
        assert len(answer) <= 3 * len(binding_request(b"t" * 12))


def test_a_fingerprint_is_answered_with_a_fingerprint() -> None:
    port = SilentPort()
    StunService(port, clock=lambda: 0.0)
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    request.add_fingerprint()
    port.stun.handle_datagram(bytes(request), SOURCE)
    assert "FINGERPRINT" in parse(port.sent[0][0]).attributes
    assert len(port.sent[0][0]) <= 3 * len(bytes(request))


def test_what_it_cannot_do_gets_no_answer() -> None:
    port = SilentPort()
    StunService(port, clock=lambda: 0.0)
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, bytes(12), {"CHANGE-REQUEST": 6})
    port.stun.handle_datagram(bytes(message), SOURCE)
    assert port.sent == []
    assert port.drops.as_dict() == {"stun.unsupported": 1}


def test_one_source_is_limited_and_gets_its_share_back_with_time() -> None:
    now = 0.0
    port = SilentPort()
    service = StunService(port, clock=lambda: now)
    for _ in range(int(SOURCE_BURST) + 5):
        port.stun.handle_datagram(binding_request(bytes(12)), SOURCE)
    assert service.answered == len(port.sent) == SOURCE_BURST
    assert port.drops.as_dict() == {"stun.rate": 5}
    now = 1.0
    for _ in range(20):
        port.stun.handle_datagram(binding_request(bytes(12)), SOURCE)
    assert service.answered == SOURCE_BURST + stun_limit.SOURCE_RATE


def test_an_ipv6_source_is_its_64() -> None:
    limit = SourceLimit(0.0)
    allowed = sum(limit.allows(f"2001:db8::{number:x}", 0.0) for number in range(1, 200))
    assert allowed == SOURCE_BURST
    assert len(limit) == 1


def test_forged_sources_meet_the_total_and_the_table_stays_small() -> None:
    limit = SourceLimit(0.0)
    allowed = sum(limit.allows(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 0.0) for n in range(3 * MAX_SOURCES))
    assert allowed == TOTAL_BURST
    assert len(limit) == MAX_SOURCES


def test_a_clock_that_stands_still_or_steps_back_gives_nothing() -> None:
    limit = SourceLimit(10.0)
    assert sum(limit.allows("192.0.2.1", 10.0 - step) for step in range(100)) == SOURCE_BURST


def test_after_close_nobody_answers() -> None:
    port = SilentPort()
    StunService(port, clock=lambda: 0.0).close()
    port.stun.handle_datagram(binding_request(bytes(12)), SOURCE)
    assert port.sent == []
