"""The states of the handshake that we initiate with one peer, and what moves it from one to another.

    IDLE ──wanted, but no endpoint──▶ WAITING ──endpoint known: initiation sent──▶ INITIATED
      │                                                                           │ ▲   │
      └────────────────────────── initiation sent ───────────────────────────────▶┘ └───┘ every 5 s
        answered, confirmed by the peer's own handshake, or given up after 90 s: back to IDLE

Answering the peer's handshakes needs no state: an answer is complete when it is sent. Only ``Peer`` sets a
state, by :data:`TRANSITIONS`.
"""

from enum import Enum


class HandshakeState(Enum):
    """Our own handshake with this peer."""

    IDLE = "idle"
    WAITING = "waiting for an endpoint"
    INITIATED = "initiated"


class Step(Enum):
    """What can move it."""

    NO_ENDPOINT = "no endpoint"
    SENT = "initiation sent"
    ANSWERED = "answered"
    CONFIRMED = "confirmed by the peer's own handshake"
    GIVEN_UP = "given up"
    STOPPED = "peer removed"


TRANSITIONS: dict[tuple[HandshakeState, Step], HandshakeState] = {
    (HandshakeState.IDLE, Step.NO_ENDPOINT): HandshakeState.WAITING,
    (HandshakeState.IDLE, Step.SENT): HandshakeState.INITIATED,
    (HandshakeState.IDLE, Step.CONFIRMED): HandshakeState.IDLE,
    (HandshakeState.IDLE, Step.STOPPED): HandshakeState.IDLE,
    (HandshakeState.WAITING, Step.NO_ENDPOINT): HandshakeState.WAITING,
    (HandshakeState.WAITING, Step.SENT): HandshakeState.INITIATED,
    (HandshakeState.WAITING, Step.CONFIRMED): HandshakeState.IDLE,
    (HandshakeState.WAITING, Step.STOPPED): HandshakeState.IDLE,
    (HandshakeState.INITIATED, Step.NO_ENDPOINT): HandshakeState.WAITING,
    (HandshakeState.INITIATED, Step.SENT): HandshakeState.INITIATED,
    (HandshakeState.INITIATED, Step.ANSWERED): HandshakeState.IDLE,
    (HandshakeState.INITIATED, Step.CONFIRMED): HandshakeState.IDLE,
    (HandshakeState.INITIATED, Step.GIVEN_UP): HandshakeState.IDLE,
    (HandshakeState.INITIATED, Step.STOPPED): HandshakeState.IDLE,
}
