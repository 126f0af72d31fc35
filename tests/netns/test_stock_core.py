"""The pure core against wireguard-go over real UDP, with a clock of ours that we put forward."""

import os
import random
import select
from collections.abc import Callable
from contextlib import closing, suppress

import pytest
from flooder import MAX_RUN, initiations
from joined import eventually
from stock_core import ECHO_REQUEST, NO_PSK, Core, Pair, core_and_stock, echo
from stock_peers import handshakes, received_bytes

from dhtvpn.lab.machine import Machine
from dhtvpn.lab.network import Network
from dhtvpn.lab.topology import Host, Role, Topology
from dhtvpn.wireguard.constants import (
    KEEPALIVE_TIMEOUT,
    REJECT_AFTER_TIME,
    REKEY_AFTER_TIME,
    REKEY_TIMEOUT,
    TYPE_COOKIE_REPLY,
    TYPE_DATA,
    TYPE_INITIATION,
    TYPE_RESPONSE,
)
from dhtvpn.wireguard.cookie import NO_MAC
from dhtvpn.wireguard.messages import INITIATION_SIZE, RESPONSE_SIZE
from dhtvpn.wireguard.transport import OVERHEAD

pytestmark = pytest.mark.netns
Lab = Callable[[Topology], Network]
TOPOLOGY = Topology(
    "stock-core",
    "our core, wireguard-go, and a stranger",
    hosts=(Host("ours", Role.PLAIN), Host("theirs", Role.PLAIN), Host("stranger", Role.PLAIN)),
)
PSK = bytes(range(32))
psks = pytest.mark.parametrize("psk", [NO_PSK, PSK], ids=["no-psk", "psk"])


@pytest.fixture
def network(lab: Lab) -> Network:
    return lab(TOPOLOGY)


def machines(network: Network) -> tuple[Machine, Machine]:
    return network.node("ours"), network.node("theirs")


@psks
def test_we_initiate(network: Network, psk: bytes) -> None:
    with core_and_stock(*machines(network), psk=psk) as pair:
        pair.we_connect()
        pair.core.ping(1)
        pair.core.answer_ping(pair.theirs)
        assert [keypair.initiator for keypair in pair.core.keypairs] == [True]
        assert handshakes(pair.theirs) > 0
        assert pair.core.drops.total() == 0


@psks
def test_wireguard_go_initiates(network: Network, psk: bytes) -> None:
    with core_and_stock(*machines(network), psk=psk) as pair:
        pair.our_endpoint_told()
        pair.core.answer_ping(pair.theirs)
        pair.core.ping(1)
        assert [keypair.initiator for keypair in pair.core.keypairs] == [False]
        assert pair.core.peer.endpoint == pair.endpoint, "learnt from the initiation"
        assert pair.core.drops.total() == 0


@pytest.mark.parametrize(
    ("theirs", "ours"), [(PSK, PSK[::-1]), (PSK, NO_PSK), (NO_PSK, PSK)], ids=["another", "none", "one"]
)
def test_another_preshared_key_gives_no_session(network: Network, theirs: bytes, ours: bytes) -> None:
    with core_and_stock(*machines(network), psk=theirs, our_psk=ours) as pair:
        pair.core.peer.set_endpoint(pair.endpoint)
        pair.core.initiate()
        pair.core.until(
            lambda: pair.core.dropped("wireguard.response"), "their response, which does not open"
        )
        assert not pair.core.keypairs


def test_wireguard_go_is_silent_to_a_key_that_it_does_not_know(network: Network) -> None:
    with core_and_stock(*machines(network)) as pair:
        stranger = Core(network.node("stranger"), os.urandom(32), pair.core.peer.public_key, NO_PSK)
        try:
            stranger.peer.set_endpoint(pair.endpoint)
            stranger.initiate()
            pair.we_connect()
            pair.core.ping(1)
            stranger.turn()
            assert stranger.received == []
        finally:
            stranger.close()


def test_a_passive_keepalive_from_us(network: Network) -> None:
    with core_and_stock(*machines(network)) as pair:
        pair.we_connect()
        pair.core.ping(1)
        before = received_bytes(pair.theirs)
        pair.core.turn()
        assert received_bytes(pair.theirs) == before
        pair.core.forward(KEEPALIVE_TIMEOUT + 0.5)
        pair.core.turn()
        eventually(lambda: received_bytes(pair.theirs) == before + OVERHEAD, "they got the keepalive")


def test_a_persistent_keepalive_from_wireguard_go(network: Network) -> None:
    with core_and_stock(*machines(network)) as pair:
        pair.our_endpoint_told()
        pair.set("persistent-keepalive", "1")
        pair.core.until(lambda: pair.core.count(TYPE_DATA) >= 3, "the confirmation and two keepalives")
        assert pair.core.packets == []
        assert pair.core.drops.total() == 0


def test_we_rekey_after_two_minutes_and_both_keypairs_deliver(network: Network) -> None:
    with core_and_stock(*machines(network)) as pair:
        core = pair.core
        pair.we_connect()
        core.ping(1)
        core.forward(REKEY_AFTER_TIME + 1)
        late = core.seal(echo(ECHO_REQUEST, 2))
        core.hold = True
        core.send(echo(ECHO_REQUEST, 3))  # its being sent asks for the handshake
        core.until(lambda: len(core.held) == 1 and len(core.keypairs) == 2, "a second handshake")
        first, second = core.keypairs
        assert second.initiator
        core.hold = False

        (held,) = core.held
        assert int.from_bytes(held[4:8], "little") == first.local_index
        core.take(held)
        assert core.replied(3), "what they sealed before opens with the previous keypair"

        core.put(late)
        core.wait_reply(2)
        assert int.from_bytes(core.received[-1][4:8], "little") == second.local_index
        assert int.from_bytes(late[4:8], "little") == first.remote_index, "the previous one delivers to them"
        core.ping(4)
        core.answer_ping(pair.theirs)
        assert int.from_bytes(core.sent[-1][4:8], "little") == second.remote_index
        assert core.drops.total() == 0


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
def test_we_use_no_keypair_after_three_minutes(network: Network, initiator: str) -> None:
    """Neither to seal nor to open, whoever made it; the next packet of ours brings a new one."""
    with core_and_stock(*machines(network)) as pair:
        core = pair.core
        if initiator == "ours":
            pair.we_connect()
        else:
            pair.our_endpoint_told()
            core.answer_ping(pair.theirs)
        core.ping(1)
        core.hold = True
        core.send(echo(ECHO_REQUEST, 2))
        core.until(lambda: core.held, "a reply that comes late")
        core.hold = False
        core.forward(REJECT_AFTER_TIME + 1)
        core.take(core.held[-1])
        assert not core.replied(2)
        assert core.dropped("dataplane.data_expired") == 1
        assert core.transport.seal(echo(ECHO_REQUEST, 3), core.now) is None
        core.peer.needs_handshake(core.now, core.unix_time)
        core.until(lambda: len(core.keypairs) == 2, "a new handshake")
        assert core.keypairs[1].initiator
        core.ping(4)
        core.answer_ping(pair.theirs)


def test_wireguard_go_gets_in_with_our_cookie(network: Network) -> None:
    """Our device is under load all the time. wireguard-go puts the cookie into its next try, 5 s later."""
    with core_and_stock(*machines(network), psk=PSK, under_load=lambda _: True) as pair:
        core = pair.core
        pair.our_endpoint_told()
        core.answer_ping(pair.theirs)
        first, second = [message for message in core.received if message[0] == TYPE_INITIATION]
        assert first[-16:] == NO_MAC and second[-16:] != NO_MAC
        assert [len(message) for message in core.sent if message[0] != TYPE_DATA] == [64, RESPONSE_SIZE]
        assert core.dropped("wireguard.no_cookie") == 1


class Nonsense:
    """Initiations with a valid mac1 and nothing behind it, from eight ports of a stranger.

    wireguard-go is under load while 128 handshake messages wait in its queue, and for a second after that.
    """

    BURST = 512

    def __init__(self, pair: Pair, stranger: Machine) -> None:
        rng = random.Random(0)
        runs = b"".join(initiations(rng, pair.core.peer.public_key)[0] for _ in range(self.BURST // MAX_RUN))
        self._messages = [runs[at : at + INITIATION_SIZE] for at in range(0, len(runs), INITIATION_SIZE)]
        self._sockets = [stranger.socket() for _ in range(8)]
        for sock in self._sockets:
            sock.connect(pair.endpoint)
            sock.setblocking(False)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()

    def press(self) -> None:
        """Bursts until one of them brings a cookie reply; then wireguard-go's queue is empty again."""
        self._cookies()
        eventually(self._burst, "wireguard-go is under load")
        eventually(lambda: not self._cookies(), "all have been read")

    def gets_cookie(self) -> bool:
        """Whether wireguard-go is under load still: one more message is answered with a cookie reply."""
        self._cookies()
        self._sockets[0].send(self._messages[0])
        return bool(select.select([self._sockets[0]], [], [], 0.5)[0])

    def _burst(self) -> int:
        for number, message in enumerate(self._messages):
            self._sockets[number % len(self._sockets)].send(message)
        return self._cookies()

    def _cookies(self) -> int:
        """How many cookie replies have come since the last call."""
        number = 0
        for sock in self._sockets:
            with suppress(BlockingIOError):
                while True:
                    assert sock.recv(2048)[0] == TYPE_COOKIE_REPLY
                    number += 1
        return number


def test_we_get_in_with_the_cookie_of_wireguard_go_under_load(network: Network) -> None:
    with (
        core_and_stock(*machines(network), psk=PSK) as pair,
        closing(Nonsense(pair, network.node("stranger"))) as nonsense,
    ):
        core = pair.core
        core.peer.set_endpoint(pair.endpoint)

        def answer_under_load() -> bytes:
            """What an initiation brings. It may be lost in wireguard-go's queue, and the load may be over
            before the next one: whoever asks tries again."""
            nonsense.press()
            core.forward(REKEY_TIMEOUT + 1)
            before = len(core.received)
            core.initiate()
            core.until(lambda: len(core.received) > before, "an answer")
            return core.received[before]

        eventually(lambda: answer_under_load()[0] == TYPE_COOKIE_REPLY, "a cookie reply")
        last = core.sent[-1]
        assert last[0] == TYPE_INITIATION and last[-16:] == NO_MAC, "section 5.4.7: nothing is sent at once"
        eventually(
            lambda: answer_under_load()[0] == TYPE_RESPONSE and nonsense.gets_cookie(),
            "a response while wireguard-go asks others for cookies",
        )
        last = [message for message in core.sent if message[0] == TYPE_INITIATION][-1]
        assert last[-16:] != NO_MAC
        core.ping(1)
        assert core.dropped("wireguard.cookie") == 0
