"""mac1, mac2 and cookies."""

import os

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.errors import DecodeError
from dhtvpn.wireguard.constants import COOKIE_LIFETIME, COOKIE_SECRET_LIFETIME
from dhtvpn.wireguard.cookie import NO_MAC, MacChecker, MacMaker
from dhtvpn.wireguard.messages import CookieReply, Initiation

RESPONDER = bytes([7]) * 32
HERE = Endpoint("192.0.2.1", 51820)
MESSAGE = Initiation(5, bytes(32), bytes(48), bytes(28)).pack()


def sides() -> tuple[MacMaker, MacChecker]:
    return MacMaker(RESPONDER), MacChecker(RESPONDER, os.urandom)


def test_mac1_shows_that_the_sender_knows_our_key() -> None:
    maker, checker = sides()
    assert checker.mac1_valid(maker.append(MESSAGE, 0.0))
    assert not checker.mac1_valid(MacMaker(bytes(32)).append(MESSAGE, 0.0))


@pytest.mark.parametrize("offset", [0, 4, 60, 115, 116, 131])
def test_mac1_covers_every_byte_before_mac2(offset: int) -> None:
    maker, checker = sides()
    datagram = bytearray(maker.append(MESSAGE, 0.0))
    datagram[offset] ^= 1
    assert not checker.mac1_valid(bytes(datagram))


def test_mac2_is_zero_without_a_cookie_and_never_valid() -> None:
    maker, checker = sides()
    datagram = maker.append(MESSAGE, 0.0)
    assert datagram.endswith(NO_MAC)
    assert not checker.mac2_valid(datagram, HERE, 0.0)
    checker.reply(datagram, HERE, 0.0)
    assert not checker.mac2_valid(datagram, HERE, 0.0)


def learned(now: float = 0.0) -> tuple[MacMaker, MacChecker]:
    maker, checker = sides()
    maker.learn(CookieReply.unpack(checker.reply(maker.append(MESSAGE, now), HERE, now)), now)
    return maker, checker


def test_a_cookie_is_for_one_address_and_port() -> None:
    maker, checker = learned()
    datagram = maker.append(MESSAGE, 1.0)
    assert checker.mac1_valid(datagram)
    assert checker.mac2_valid(datagram, HERE, 1.0)
    assert not checker.mac2_valid(datagram, Endpoint("192.0.2.1", 51821), 1.0)
    assert not checker.mac2_valid(datagram, Endpoint("192.0.2.2", 51820), 1.0)


def test_both_sides_forget_a_cookie_after_two_minutes() -> None:
    maker, checker = learned()
    datagram = maker.append(MESSAGE, COOKIE_LIFETIME - 1)
    assert not datagram.endswith(NO_MAC)
    assert not checker.mac2_valid(datagram, HERE, COOKIE_SECRET_LIFETIME)
    assert maker.append(MESSAGE, COOKIE_LIFETIME).endswith(NO_MAC)


def test_a_new_secret_voids_the_old_cookie() -> None:
    maker, checker = learned()
    checker.reply(maker.append(MESSAGE, 119.0), HERE, 125.0)
    assert not checker.mac2_valid(maker.append(MESSAGE, 119.0), HERE, 125.0)


def test_a_reply_counts_for_the_last_message_only_and_once() -> None:
    maker, checker = sides()
    first = maker.append(MESSAGE, 0.0)
    maker.append(MESSAGE[:-1] + b"x", 0.0)
    with pytest.raises(DecodeError, match="cookie"):
        maker.learn(CookieReply.unpack(checker.reply(first, HERE, 0.0)), 0.0)
    reply = CookieReply.unpack(checker.reply(maker.append(MESSAGE, 0.0), HERE, 0.0))
    maker.learn(reply, 0.0)
    with pytest.raises(DecodeError, match="cookie"):
        maker.learn(reply, 0.0)


def test_a_reply_before_any_message_is_refused() -> None:
    maker, checker = sides()
    reply = CookieReply.unpack(checker.reply(MacMaker(RESPONDER).append(MESSAGE, 0.0), HERE, 0.0))
    with pytest.raises(DecodeError, match="cookie"):
        maker.learn(reply, 0.0)
