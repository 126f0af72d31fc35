"""One peer: its handshakes, its keypairs and its timers (paper sections 5.4 and 6).

The states of our own handshake stand in ``handshake_state``.

Unlike stock implementations we keep our own initiation when the peer's crosses it: then both handshakes
complete and ``keypair.KeypairSlots`` settles on one, where otherwise both would be void and cost 5 s.

Data messages are sealed and opened elsewhere; the occasions ``data_sent``, ``data_received``,
``keepalive_sent``, ``keepalive_received`` and ``keypair_confirmed`` tell what became of them.
"""

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.wireguard import noise
from dhtvpn.wireguard.constants import (
    ERASE_AFTER_TIME,
    INITIATIONS_PER_PEER_S,
    KEEPALIVE_TIMEOUT,
    KEY_SIZE,
    NEW_HANDSHAKE_AFTER_TIME,
    REKEY_AFTER_TIME,
    REKEY_ATTEMPT_TIME,
    REKEY_ON_RECEIVE_AFTER_TIME,
    REKEY_TIMEOUT,
    REKEY_TIMEOUT_JITTER,
)
from dhtvpn.wireguard.cookie import MacMaker
from dhtvpn.wireguard.events import (
    EndpointLearned,
    Event,
    HandshakeFailed,
    KeypairReady,
    KeypairsErased,
    SendKeepalive,
)
from dhtvpn.wireguard.handshake_state import TRANSITIONS, HandshakeState, Step
from dhtvpn.wireguard.indices import IndexTable
from dhtvpn.wireguard.keypair import Keypair, KeypairSlots
from dhtvpn.wireguard.messages import CookieReply, Response
from dhtvpn.wireguard.tai64n import Stamper
from dhtvpn.wireguard.timers import Timer, Timers

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Surroundings:
    """What a peer shares with its device: the own key, randomness, the index table, and the way out."""

    local: noise.LocalStatic
    random_bytes: Callable[[int], bytes] = field(repr=False)
    indices: "IndexTable[Peer]" = field(repr=False)
    stamper: Stamper = field(default_factory=Stamper, repr=False)
    datagrams: list[tuple[bytes, Endpoint]] = field(default_factory=list, repr=False)
    events: list[Event] = field(default_factory=list, repr=False)


class Peer:
    """Made by ``Device.add_peer``. All times are monotonic seconds unless called ``unix_time``.

    ``greatest_timestamp`` is the greatest TAI64N stamp (12 bytes) that this peer ever sent us, None before
    the first. Settable, so that protection against replayed initiations can outlive this process.
    ``last_handshake`` is when the newest usable session was made, None before the first.
    ``label`` names the peer in the log; the owner may set a better one.
    """

    def __init__(
        self, public_key: bytes, preshared_key: bytes, keepalive_s: float | None, surroundings: Surroundings
    ) -> None:
        """Raises DecodeError "low_order" where ``public_key`` is no proper point."""
        self.public_key = public_key
        self.preshared_key = preshared_key
        self.keepalive_s = keepalive_s
        self.label = base64.b32encode(public_key).decode()[:8].lower()
        self.endpoint: Endpoint | None = None
        self.greatest_timestamp: bytes | None = None
        self.last_handshake: float | None = None
        self.timers = Timers()
        self._around = surroundings
        self._static_static = noise.shared_secret(surroundings.local.private_key, public_key)
        self._macs = MacMaker(public_key)
        self._state = HandshakeState.IDLE
        self._slots: KeypairSlots[Keypair] = KeypairSlots()
        self._pending: noise.PendingInitiation | None = None
        self._attempt_since = 0.0
        self._initiated_at: float | None = None
        self._answered_at: float | None = None
        self._received_at: float | None = None
        self._another_keepalive = False

    def __repr__(self) -> str:
        return f"Peer({self.label}, {self._state.value}, endpoint={self.endpoint})"

    @property
    def state(self) -> HandshakeState:
        return self._state

    def usable(self, now: float) -> bool:
        """Whether there is a keypair to send with."""
        return self._slots.current is not None and not self._slots.current.expired(now)

    @property
    def answered_at(self) -> float | None:
        """When we answered an initiation of the peer last; None before the first."""
        return self._answered_at

    # What the owner asks for

    def set_endpoint(self, endpoint: Endpoint | None) -> None:
        """Where to send from now on. A handshake that waits for it becomes due at once."""
        self.endpoint = endpoint
        if endpoint is not None and self._state is HandshakeState.WAITING:
            self.timers.arm(Timer.INITIATE, self._attempt_since)

    def initiate(self, now: float, unix_time: float, force: bool = False) -> None:
        """Start a handshake. Does nothing while one is under way, and waits until REKEY_TIMEOUT has passed
        since the last initiation; ``force`` sends a fresh initiation in any case (it voids the one before).
        Without an endpoint, it starts when one becomes known."""
        if force:
            self._attempt_since = now
            self._send_initiation(now, unix_time)
        elif self._state is not HandshakeState.INITIATED:
            self._schedule_initiation(now)
            if Timer.INITIATE in self.timers and self._may_initiate(now):
                self.timers.cancel(Timer.INITIATE)
                self._send_initiation(now, unix_time)

    def needs_handshake(self, now: float, unix_time: float) -> None:
        """The engine had something to send and no keypair. Ignored just after a handshake: then the keypair
        is on its way to the engine, or the peer's confirmation on its way to us."""
        newest = max((keypair.created_at for keypair in self._slots), default=None)
        if newest is None or now - newest >= REKEY_TIMEOUT:
            self.initiate(now, unix_time)

    # Occasions that the engine reports. Of those at the same instant, received counts as the later one.

    def data_sent(self, now: float) -> None:
        """A data message with something in it was sent (now, or since the last report)."""
        if now != self._received_at and Timer.NO_ANSWER not in self.timers:
            self.timers.arm(Timer.NO_ANSWER, now + NEW_HANDSHAKE_AFTER_TIME + self._jitter())
        self.keepalive_sent(now)

    def data_received(self, now: float) -> None:
        """A data message with something in it was opened."""
        self._received_at = now
        if Timer.PASSIVE_KEEPALIVE in self.timers:
            self._another_keepalive = True
        else:
            self.timers.arm(Timer.PASSIVE_KEEPALIVE, now + KEEPALIVE_TIMEOUT)
        self.keepalive_received(now)

    def keepalive_sent(self, now: float) -> None:
        """An empty data message was sent."""
        if now != self._received_at:
            self.timers.cancel(Timer.PASSIVE_KEEPALIVE)
        self._passed(now)
        self._refresh(now, REKEY_AFTER_TIME)

    def keepalive_received(self, now: float) -> None:
        """An empty data message was opened."""
        self.timers.cancel(Timer.NO_ANSWER)
        self._passed(now)
        self._refresh(now, REKEY_ON_RECEIVE_AFTER_TIME)

    def keypair_confirmed(self, local_index: int) -> None:
        """The peer used the keypair that we made as the responder. An unknown or replaced one is ignored."""
        evicted = self._slots.confirm(local_index)
        if evicted is None or self._slots.current is None:
            return
        self._release(evicted)
        self.last_handshake = self._slots.current.created_at
        self._end_attempt(Step.CONFIRMED)
        self.timers.cancel(Timer.NO_ANSWER)

    # Handshake messages, already past mac1 and the load check

    def handle_initiation(self, received: noise.ReceivedInitiation, source: Endpoint, now: float) -> None:
        """Answer an initiation. Raises DecodeError "timestamp", "replay", "flood" or "low_order"; only an
        initiation that passes all of them changes anything."""
        timestamp = received.open_timestamp(self._static_static)
        if self.greatest_timestamp is not None and timestamp <= self.greatest_timestamp:
            raise DecodeError("replay")
        if self._answered_at is not None and now - self._answered_at < 1 / INITIATIONS_PER_PEER_S:
            raise DecodeError("flood")
        index = self._around.indices.allocate(self)
        try:
            response, keys = received.respond(
                self.preshared_key, sender=index, ephemeral_private=self._around.random_bytes(KEY_SIZE)
            )
        except DecodeError:
            self._around.indices.release(index)
            raise
        self.greatest_timestamp = timestamp
        self._answered_at = now
        self._learn_endpoint(source)
        self._send(response.pack(), now)
        self._install(Keypair(index, received.sender, keys.send_key, keys.receive_key, False, now), now)

    def handle_response(self, response: Response, source: Endpoint, now: float) -> None:
        """Finish our handshake. Raises DecodeError "index", "response" or "low_order"."""
        pending = self._pending
        if pending is None or pending.message.sender != response.receiver:
            raise DecodeError("index")
        keys = noise.finish(self._around.local, pending, self.preshared_key, response)
        self._pending = None  # its index lives on as the keypair's
        self._end_attempt(Step.ANSWERED)
        self._learn_endpoint(source)
        self.timers.cancel(Timer.NO_ANSWER)
        index = pending.message.sender
        self._install(Keypair(index, response.sender, keys.send_key, keys.receive_key, True, now), now)
        self.last_handshake = now
        self._around.events.append(SendKeepalive(self.public_key))
        self.keepalive_sent(now)

    def handle_cookie_reply(self, reply: CookieReply, now: float) -> None:
        """Keep the cookie for the next attempt. Raises DecodeError "cookie"."""
        self._macs.learn(reply, now)

    # Time

    def handle_timeout(self, now: float, unix_time: float) -> None:
        """Do what is due."""
        for timer in self.timers.take_due(now):
            match timer:
                case Timer.ERASE:
                    self._erase()
                case Timer.INITIATE:
                    self._initiate_due(now, unix_time)
                case Timer.NO_ANSWER:
                    log.debug("peer %s: sent data, heard nothing for 15 s: new handshake", self.label)
                    self.initiate(now, unix_time)
                case Timer.PASSIVE_KEEPALIVE:
                    self._keepalive_due(now, unix_time)
                    if self._another_keepalive:
                        self._another_keepalive = False
                        self.timers.arm(Timer.PASSIVE_KEEPALIVE, now + KEEPALIVE_TIMEOUT)
                case Timer.PERSISTENT_KEEPALIVE:
                    self._keepalive_due(now, unix_time)
                    self._passed(now)

    def stop(self) -> None:
        """Forget everything: the peer is being removed."""
        self._end_attempt(Step.STOPPED)
        self._release(self._slots.clear())
        self.timers.cancel_all()

    def _initiate_due(self, now: float, unix_time: float) -> None:
        if self._state is not HandshakeState.INITIATED:
            self._attempt_since = now
        elif now - self._attempt_since >= REKEY_ATTEMPT_TIME:
            self._give_up(now)
            return
        self._send_initiation(now, unix_time)

    def _keepalive_due(self, now: float, unix_time: float) -> None:
        if self.usable(now):
            self._around.events.append(SendKeepalive(self.public_key))
            self.keepalive_sent(now)
        else:
            self.needs_handshake(now, unix_time)

    def _erase(self) -> None:
        erased = self._slots.clear()
        if erased:
            self._release(erased)
            self._around.events.append(KeypairsErased(self.public_key))

    def _give_up(self, now: float) -> None:
        log.debug("peer %s: no answer to our initiations", self.label)
        self._end_attempt(Step.GIVEN_UP)
        self.timers.cancel(Timer.PASSIVE_KEEPALIVE)
        self._another_keepalive = False
        if Timer.ERASE not in self.timers:
            self.timers.arm(Timer.ERASE, now + ERASE_AFTER_TIME)
        self._around.events.append(HandshakeFailed(self.public_key))

    # Initiations

    def _may_initiate(self, now: float) -> bool:
        return self._initiated_at is None or now - self._initiated_at >= REKEY_TIMEOUT

    def _schedule_initiation(self, now: float) -> None:
        """Begin an attempt as soon as REKEY_TIMEOUT allows, unless one is under way or planned."""
        if self._state is HandshakeState.INITIATED or Timer.INITIATE in self.timers:
            return
        self._attempt_since = now
        at = now if self._may_initiate(now) else (self._initiated_at or 0.0) + REKEY_TIMEOUT
        self.timers.arm(Timer.INITIATE, at)

    def _refresh(self, now: float, age_s: float) -> None:
        """Section 6.2: the initiator of the current keypair makes a new one when it is ``age_s`` old."""
        current = self._slots.current
        if current is not None and current.initiator and now - current.created_at >= age_s:
            self._schedule_initiation(now)

    def _send_initiation(self, now: float, unix_time: float) -> None:
        self._drop_pending()
        if self.endpoint is None:
            self.timers.cancel(Timer.INITIATE)
            self._move(Step.NO_ENDPOINT)
            return
        self._pending = noise.start(
            self._around.local,
            self.public_key,
            self._static_static,
            sender=self._around.indices.allocate(self),
            timestamp=self._around.stamper.stamp(unix_time),
            ephemeral_private=self._around.random_bytes(KEY_SIZE),
        )
        self._initiated_at = now
        self._send(self._pending.message.pack(), now)
        self._move(Step.SENT)
        self.timers.arm(Timer.INITIATE, now + REKEY_TIMEOUT + self._jitter())

    def _end_attempt(self, step: Step) -> None:
        self._drop_pending()
        self.timers.cancel(Timer.INITIATE)
        self._move(step)

    def _drop_pending(self) -> None:
        if self._pending is not None:
            self._around.indices.release(self._pending.message.sender)
            self._pending = None

    # Common to all

    def _install(self, keypair: Keypair, now: float) -> None:
        self._release(self._slots.install(keypair))
        self.timers.arm(Timer.ERASE, now + ERASE_AFTER_TIME)
        self._around.events.append(KeypairReady(self.public_key, keypair))

    def _release(self, keypairs: list[Keypair]) -> None:
        for keypair in keypairs:
            self._around.indices.release(keypair.local_index)

    def _learn_endpoint(self, source: Endpoint) -> None:
        if source != self.endpoint:
            self.endpoint = source
            self._around.events.append(EndpointLearned(self.public_key, source))
        if self._state is HandshakeState.WAITING:
            self._end_attempt(Step.CONFIRMED)

    def _send(self, message: bytes, now: float) -> None:
        """A handshake message, with its MACs."""
        if self.endpoint is not None:
            self._around.datagrams.append((self._macs.append(message, now), self.endpoint))
            self._passed(now)

    def _passed(self, now: float) -> None:
        """An authenticated message went either way: the persistent keepalive starts anew."""
        if self.keepalive_s is not None:
            self.timers.arm(Timer.PERSISTENT_KEEPALIVE, now + self.keepalive_s)

    def _jitter(self) -> float:
        """Zero to REKEY_TIMEOUT_JITTER seconds, so that two sides do not retry in step."""
        return int.from_bytes(self._around.random_bytes(2), "little") / 0x10000 * REKEY_TIMEOUT_JITTER

    def _move(self, step: Step) -> None:
        state = TRANSITIONS[self._state, step]
        if state is not self._state:
            log.debug("peer %s: handshake %s (%s)", self.label, state.value, step.value)
        self._state = state
