"""Write tokens: bound to the endpoint, good for five to ten minutes."""

from itertools import count

import pytest

from dhtvpn.discovery.tokens import HELD_FOR_S, MAX_HELD, ROTATE_S, TokenIssuer, TokensHeld
from dhtvpn.endpoint import Endpoint

HERE, THERE = Endpoint("198.18.0.1", 1), Endpoint("198.18.0.1", 2)


@pytest.fixture
def issuer():
    numbers = count(1)
    return TokenIssuer(lambda size: next(numbers).to_bytes(size, "big"), 0.0)


def test_a_token_is_good_for_its_endpoint_only(issuer):
    token = issuer.issue(HERE, 0.0)
    assert issuer.valid(token, HERE, 1.0)
    assert not issuer.valid(token, THERE, 1.0)
    assert not issuer.valid(b"", HERE, 1.0)
    assert not issuer.valid(bytes(8), HERE, 1.0)


@pytest.mark.parametrize("issued_at", [0.0, 150.0, 299.0])
def test_a_token_lives_five_to_ten_minutes(issuer, issued_at):
    token = issuer.issue(HERE, issued_at)
    assert issuer.valid(token, HERE, issued_at + ROTATE_S)
    assert not issuer.valid(token, HERE, issued_at + 2 * ROTATE_S + 1)


def test_an_idle_issuer_forgets_old_secrets(issuer):
    token = issuer.issue(HERE, 0.0)
    assert not issuer.valid(token, HERE, 10_000.0)


def test_held_tokens_are_used_while_they_surely_live():
    held = TokensHeld()
    held.keep(HERE, b"12345678", 0.0)
    held.keep(THERE, b"short", 0.0)
    assert held.get(HERE, HELD_FOR_S - 1) == b"12345678"
    assert held.get(HERE, HELD_FOR_S) == b""
    assert held.get(THERE, 0.0) == b""
    held.forget(HERE)
    assert held.get(HERE, 1.0) == b""


def test_held_tokens_are_capped():
    held = TokensHeld()
    for number in range(MAX_HELD + 10):
        held.keep(Endpoint("198.18.0.1", number + 1), b"12345678", 0.0)
    assert len(held) == MAX_HELD
