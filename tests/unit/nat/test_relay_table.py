"""Who may be reached and who may send through a volunteer, on a virtual clock."""

import random

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.mesh.bucket import LEAST_BURST, Bucket
from dhtvpn.mesh.relay_wire import NO_TOKEN, Refused, Register, Registered, Token, relay_id
from dhtvpn.nat import relay_table as module
from dhtvpn.nat.relay_table import LEASE_S, RelayTable

A, B = Endpoint("192.0.2.1", 4001), Endpoint("192.0.2.2", 4002)
CLAIM = bytes(16)
IDENTITY = relay_id(CLAIM)


class EasyTokens:
    """The token of an endpoint is its port."""

    def issue(self, endpoint: Endpoint, now: float) -> bytes:
        return endpoint.port.to_bytes(8, "big")

    def valid(self, token_untrusted: bytes, endpoint: Endpoint, now: float) -> bool:
        return token_untrusted == endpoint.port.to_bytes(8, "big")


class Bench:
    def __init__(self, rate: float = 1e9, source_rate: float = 1e9) -> None:
        self.drops = Drops()
        self.table = RelayTable(EasyTokens(), rate=rate, source_rate=source_rate, drops=self.drops, now=0.0)

    def register(self, claim: bytes, endpoint: Endpoint, now: float = 0.0) -> object:
        token = EasyTokens().issue(endpoint, now)
        return self.table.register(Register(claim, token), endpoint, now)


def test_an_address_is_proven_first() -> None:
    bench = Bench()
    assert bench.table.register(Register(CLAIM, NO_TOKEN), A, 0.0) == Token(EasyTokens().issue(A, 0.0))
    assert len(bench.table) == bench.table.ids == 0
    assert bench.register(CLAIM, A) == Registered(IDENTITY, LEASE_S)
    assert bench.table.holder(IDENTITY, 1.0) == A
    assert bench.table.register(Register(CLAIM, EasyTokens().issue(A, 0.0)), B, 0.0) == Token(
        EasyTokens().issue(B, 0.0)
    )
    assert bench.table.holder(IDENTITY, 1.0) == A


def test_strangers_neither_send_nor_are_reached() -> None:
    bench = Bench()
    assert bench.table.sender(A, 0.0) is None
    assert bench.table.holder(IDENTITY, 0.0) is None
    assert bench.drops.as_dict() == {"relay.not_here": 1, "relay.stranger": 1}


def test_a_registration_ends_with_its_lease_and_leaves_nothing() -> None:
    bench = Bench()
    bench.register(CLAIM, A)
    assert bench.table.holder(IDENTITY, LEASE_S - 0.1) == A
    assert bench.table.holder(IDENTITY, LEASE_S) is None and bench.table.sender(A, LEASE_S) is None
    bench.register(bytes([1]) * 16, B, LEASE_S + 2)
    assert (len(bench.table), bench.table.ids, len(bench.table._prefixes)) == (1, 1, 1)


def test_who_moves_takes_its_id_along() -> None:
    bench = Bench()
    bench.register(CLAIM, A)
    bench.register(CLAIM, B, 1.0)
    assert bench.table.holder(IDENTITY, 2.0) == B
    assert bench.table.sender(A, 2.0) is None and len(bench.table) == 1


def test_caps_per_address_and_per_prefix() -> None:
    bench = Bench()
    answers = [bench.register(bytes([number]) * 16, A) for number in range(module.MAX_IDS_PER_SOURCE + 1)]
    assert isinstance(answers[-1], Refused) and isinstance(answers[-2], Registered)
    for port in range(2 * module.MAX_SOURCES_PER_PREFIX):
        bench.register(port.to_bytes(16, "big"), Endpoint("198.51.100.7", 1024 + port))
    assert len(bench.table) == 1 + module.MAX_SOURCES_PER_PREFIX
    assert isinstance(bench.register(bytes(15) + b"x", Endpoint("203.0.113.1", 9)), Registered)


def test_the_table_has_an_end() -> None:
    bench = Bench()
    source = random.Random(1)
    for number in range(module.MAX_SOURCES + 500):
        host = ".".join(str(part) for part in (10 + number % 90, number // 256 % 256, number % 256, 1))
        bench.register(source.randbytes(16), Endpoint(host, 4690))
    assert len(bench.table) == bench.table.ids == module.MAX_SOURCES
    assert bench.drops.as_dict()["relay.full"] == 500


def test_rates_of_one_and_of_all() -> None:
    bench = Bench(rate=2e6, source_rate=1e6)
    for endpoint in (A, B, Endpoint("203.0.113.3", 3)):
        bench.register(endpoint.host.encode().ljust(16), endpoint)
    passed = {}
    for endpoint in (A, B, Endpoint("203.0.113.3", 3)):
        sender = bench.table.sender(endpoint, 0.0)
        assert sender is not None
        passed[endpoint] = sum(
            1000 for step in range(20_000) if bench.table.admit(sender, 1000, step / 2000, 1)
        )
    assert 10e6 <= passed[A] <= 10e6 + LEAST_BURST
    assert bench.table.relayed_octets == sum(passed.values())
    assert bench.drops.as_dict()["relay.source_rate"] > 0


def test_a_bucket_fills_no_higher_than_its_burst() -> None:
    bucket = Bucket(4e6, 0.0)
    assert bucket.take(10**6, 100.0) and not bucket.take(1, 100.0)
    assert bucket.take(399_000, 100.1) and not bucket.take(2000, 100.1)
    assert not bucket.take(2000, 50.0)  # a clock that steps back gives nothing
