"""Two cores joined by a link that loses, repeats, reorders, delays, corrupts, forges and misdirects.

Whatever it does, and though a side may start anew: no exception, no packet delivered twice, altered, too
late, or to the wrong side, no keypair that only one side has; and as soon as the link behaves again, the two
sides converge and talk.
"""

import hashlib
import random
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.wireguard import device as wg
from dhtvpn.wireguard.constants import REJECT_AFTER_TIME, TYPE_DATA
from dhtvpn.wireguard.cookie import MacMaker
from dhtvpn.wireguard.keypair import Keypair
from dhtvpn.wireguard.messages import MACS_SIZE
from dhtvpn.wireguard.transport import PeerTransport

UNIX_TIME = 1_700_000_000.0
MAX_IN_FLIGHT = 200
PADDING = 16


def scripted_random(seed: str) -> Callable[[int], bytes]:
    count = 0

    def random_bytes(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed} {count}".encode()).digest(size)

    return random_bytes


class Core:
    """One side: what the control process and the engine have of one peer."""

    def __init__(self, name: str, endpoint: Endpoint) -> None:
        self.name = name
        self.endpoint = endpoint
        self.drops = Drops()
        self._random_bytes = scripted_random(name)
        self._private = self._random_bytes(32)
        self._begin()
        self.made: dict[int, Keypair] = {}  # by local index
        self.outgoing: list[bytes] = []
        self.delivered: list[bytes] = []
        self.keys: set[tuple[bytes, bytes]] = set()
        self.sent = 0

    def _begin(self) -> None:
        self.device = wg.Device(self._private, self._random_bytes, drops=self.drops)
        self.transport = PeerTransport(1420, self.confirmed)

    def confirmed(self, local_index: int) -> None:
        self.peer.keypair_confirmed(local_index)

    def restart(self) -> None:
        """Lose everything but what is kept on disk: the private key and the greatest time stamp."""
        greatest = self.peer.greatest_timestamp
        self._begin()
        self.meet(self.other)
        self.peer.greatest_timestamp = greatest

    def meet(self, other: "Core") -> None:
        self.other = other
        self.peer = self.device.add_peer(other.device.public_key, bytes(32), 25.0)
        self.peer.set_endpoint(other.endpoint)

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> None:
        if datagram[:1] == b"\4":
            try:
                plaintext = self.transport.open(datagram, now)
            except DecodeError:
                return
            keypair = self.made[int.from_bytes(datagram[4:8], "little")]
            assert now < keypair.created_at + REJECT_AFTER_TIME, "opened too late"
            if plaintext:
                self.peer.data_received(now)
                self.delivered.append(plaintext)
            else:
                self.peer.keepalive_received(now)
        else:
            self.device.handle_datagram(datagram, source, now, UNIX_TIME + now)
        self.flush(now)

    def send(self, now: float) -> bool:
        """A packet that names its sender and its number, padded so that it comes out as it went in."""
        plaintext = f"{self.name} {self.sent}".encode()
        datagram = self.transport.seal(plaintext.ljust(PADDING, b"\0"), now)
        if datagram is None:
            self.peer.needs_handshake(now, UNIX_TIME + now)
        else:
            session = self.transport.sending(now)
            assert session is not None, "sealed too late"
            assert now < self.made[session.local_index].created_at + REJECT_AFTER_TIME, "sealed too late"
            self.sent += 1
            self.outgoing.append(datagram)
            self.peer.data_sent(now)
        self.flush(now)
        return datagram is not None

    def wake(self, now: float) -> None:
        timeout = self.device.next_timeout()
        if timeout is not None and timeout <= now:
            self.device.handle_timeout(now, UNIX_TIME + now)
        self.flush(now)

    def flush(self, now: float) -> None:
        self.outgoing += [datagram for datagram, _ in self.device.datagrams_to_send()]
        for event in self.device.events():
            match event:
                case wg.KeypairReady():
                    self._install(event.keypair)
                case wg.KeypairsErased():
                    self.transport.erase()
                case wg.SendKeepalive():
                    datagram = self.transport.seal(b"", now)
                    if datagram is not None:
                        self.outgoing.append(datagram)

    def _install(self, keypair: Keypair) -> None:
        keys = keypair.send_key, keypair.receive_key
        assert keys not in self.keys, "a key was made twice"
        assert keypair.send_key != keypair.receive_key, "one key for both directions"
        assert not keypair.initiator or keys[::-1] in self.other.keys, "the responder has other keys"
        self.keys.add(keys)
        self.made[keypair.local_index] = keypair
        self.transport.install(keypair)


class Link(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.cores = (Core("a", Endpoint("192.0.2.1", 1)), Core("b", Endpoint("2001:db8::2", 2)))
        self.cores[0].meet(self.cores[1])
        self.cores[1].meet(self.cores[0])
        self.in_flight: list[tuple[int, bytes]] = []  # (whom it is for, datagram)
        self.recorded: list[tuple[int, bytes]] = []  # what somebody on the way has kept
        self.answered: set[bytes] = set()
        self.silent: int | None = None

    @initialize(connected=st.booleans(), silent=st.sampled_from([None, 0, 1]))
    def begin(self, connected: bool, silent: int | None) -> None:
        self.silent = silent
        if connected:
            self.initiate(0, False)
            self.settle()

    def collect(self) -> None:
        for number, core in enumerate(self.cores):
            for datagram in core.outgoing:
                self.in_flight.append((1 - number, datagram))
                if datagram[0] == 2:
                    initiation = datagram[8:12]  # by its sender index, which is random
                    assert initiation not in self.answered, "an initiation was answered twice"
                    self.answered.add(initiation)
            core.outgoing.clear()
        self.recorded += self.in_flight
        del self.in_flight[:-MAX_IN_FLIGHT]
        del self.recorded[:-MAX_IN_FLIGHT]

    def arrive(self, receiver: int, datagram: bytes) -> None:
        self.cores[receiver].receive(datagram, self.cores[1 - receiver].endpoint, self.now)
        self.collect()

    @rule(side=st.integers(0, 1), count=st.integers(1, 5))
    def send(self, side: int, count: int) -> None:
        for _ in range(count):
            self.cores[side].send(self.now)
        self.collect()

    @rule(side=st.integers(0, 1), force=st.booleans())
    def initiate(self, side: int, force: bool) -> None:
        self.cores[side].peer.initiate(self.now, UNIX_TIME + self.now, force=force)
        self.cores[side].flush(self.now)
        self.collect()

    @rule()
    def initiate_both(self) -> None:
        self.initiate(0, True)
        self.initiate(1, True)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), repeat=st.booleans())
    def deliver(self, data: st.DataObject, repeat: bool) -> None:
        place = data.draw(st.integers(0, len(self.in_flight) - 1))
        receiver, datagram = self.in_flight[place]
        if not repeat:
            del self.in_flight[place]
        self.arrive(receiver, datagram)

    @rule()
    def deliver_all(self) -> None:
        on_their_way, self.in_flight = self.in_flight, []
        for receiver, datagram in on_their_way:
            self.arrive(receiver, datagram)

    @rule(randomness=st.randoms(use_true_random=False), times=st.integers(1, 2))
    def deliver_shuffled(self, randomness: random.Random, times: int) -> None:
        on_their_way, self.in_flight = self.in_flight * times, []
        randomness.shuffle(on_their_way)
        for receiver, datagram in on_their_way:
            self.arrive(receiver, datagram)

    @precondition(lambda self: self.recorded)
    @rule(data=st.data(), count=st.integers(1, 20))
    def replay(self, data: st.DataObject, count: int) -> None:
        """Send what was on its way before, delivered or not, once more."""
        start = data.draw(st.integers(0, len(self.recorded) - 1))
        for receiver, datagram in self.recorded[start : start + count]:
            self.arrive(receiver, datagram)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        del self.in_flight[data.draw(st.integers(0, len(self.in_flight) - 1))]

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def reflect(self, data: st.DataObject) -> None:
        """Send it back to where it came from."""
        receiver, datagram = data.draw(st.sampled_from(self.in_flight))
        self.arrive(1 - receiver, datagram)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def corrupt(self, data: st.DataObject) -> None:
        receiver, datagram = data.draw(st.sampled_from(self.in_flight))
        altered = bytearray(datagram)
        match data.draw(st.sampled_from(["flip", "cut", "append"])):
            case "flip":
                altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
            case "cut":
                del altered[data.draw(st.integers(0, len(altered) - 1)) :]
            case "append":
                altered += data.draw(st.binary(min_size=1, max_size=40))
        self.arrive(receiver, bytes(altered))

    @precondition(lambda self: self.recorded)
    @rule(data=st.data())
    def forge(self, data: st.DataObject) -> None:
        """Alter what its seals alone protect: a handshake message gets a right mac1 again, for which the
        public keys suffice, and a data message the index of a keypair of the side that it is given to."""
        kind = data.draw(st.sampled_from(sorted({datagram[0] for _, datagram in self.recorded})))
        of_kind = [(receiver, datagram) for receiver, datagram in self.recorded if datagram[0] == kind]
        receiver, datagram = data.draw(st.sampled_from(of_kind[-4:]))
        altered = bytearray(datagram)
        core = self.cores[receiver]
        if datagram[0] == TYPE_DATA:
            core = self.cores[data.draw(st.integers(0, 1))]
            indices = core.transport.indices() or [0]
            altered[4:8] = data.draw(st.sampled_from(indices)).to_bytes(4, "little")
        else:
            altered[data.draw(st.integers(4, len(altered) - MACS_SIZE - 1))] ^= data.draw(st.integers(1, 255))
            message = bytes(altered[:-MACS_SIZE])
            altered = bytearray(MacMaker(core.device.public_key).append(message, self.now))
        self.arrive(self.cores.index(core), bytes(altered))

    @rule(side=st.integers(0, 1))
    def restart(self, side: int) -> None:
        self.cores[side].restart()

    @rule(seconds=st.one_of(st.floats(0, 1), st.floats(1, 30), st.floats(30, 700)))
    def wait(self, seconds: float) -> None:
        """Time passes, timers fire, and what is on its way stays there."""
        self.pass_time(self.now + seconds, deliver=False)

    def pass_time(self, until: float, *, deliver: bool) -> None:
        for _ in range(1000):
            timeouts = [core.device.next_timeout() for core in self.cores]
            due = min((timeout for timeout in timeouts if timeout is not None), default=None)
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            for core in self.cores:
                core.wake(self.now)
            self.collect()
            if deliver:
                self.settle()
        else:
            raise AssertionError("the timers never come to rest")
        self.now = until

    def settle(self) -> None:
        for _ in range(100):
            if not self.in_flight:
                return
            self.deliver_all()
        raise AssertionError("the two sides never stop answering each other")

    @invariant()
    def packets_arrive_unaltered_at_the_right_side_at_most_once(self) -> None:
        for receiver, sender in (self.cores, self.cores[::-1]):
            sent = {f"{sender.name} {number}".encode().ljust(PADDING, b"\0") for number in range(sender.sent)}
            assert len(set(receiver.delivered)) == len(receiver.delivered), "delivered twice"
            assert set(receiver.delivered) <= sent, "altered, or for the other side"

    @invariant()
    def nothing_grows(self) -> None:
        for core in self.cores:
            assert len(core.device._around.indices) <= 4  # three keypairs and one initiation
            assert len(core.transport.indices()) <= 3

    @invariant()
    def no_index_in_use_is_given_away(self) -> None:
        for core in self.cores:
            for index in core.transport.indices():
                assert core.device._around.indices.owner(index) is core.peer

    def teardown(self) -> None:
        """The link behaves from now on: the sides find each other, and again when one has lost its session
        and says nothing."""
        self.converge()
        if self.silent is not None:
            self.restart(self.silent)
            self.converge()

    def converge(self) -> None:
        """Within a retry and a keepalive, packets pass both ways, also where one side alone speaks. It speaks
        later than it heard: at the same instant, what was sent counts as answered."""
        self.settle()
        self.pass_time(self.now + 1, deliver=True)
        for number, core in enumerate(self.cores):
            if number != self.silent:
                core.send(self.now)
        self.collect()
        self.pass_time(self.now + 25, deliver=True)
        for sender, receiver in (self.cores, self.cores[::-1]):
            before = len(receiver.delivered)
            assert sender.send(self.now), "no session"
            self.collect()
            self.settle()
            assert len(receiver.delivered) == before + 1, "the session does not pass packets"
        one, other = (core.transport.sending(self.now) for core in self.cores)
        assert one is not None and other is not None
        assert one.remote_index == other.local_index, "each side sends with another keypair"
        self.packets_arrive_unaltered_at_the_right_side_at_most_once()


TestLink = Link.TestCase
TestLink.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
