"""Write tokens: bound to the endpoint, good for ten to fifteen minutes, also across a restart."""

from itertools import count

import pytest

from dhtvpn.discovery.tokens import (
    ACCEPTED,
    HELD_FOR_S,
    MAX_HELD,
    ROTATE_S,
    KeptTokens,
    TokenIssuer,
    TokensHeld,
)
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
def test_a_token_lives_ten_to_fifteen_minutes(issuer, issued_at):
    token = issuer.issue(HERE, issued_at)
    assert issuer.valid(token, HERE, issued_at + 2 * ROTATE_S)
    assert not issuer.valid(token, HERE, issued_at + ACCEPTED * ROTATE_S + 1)


def test_an_idle_issuer_forgets_old_secrets(issuer):
    token = issuer.issue(HERE, 0.0)
    assert not issuer.valid(token, HERE, 10_000.0)
    assert issuer.valid(issuer.issue(HERE, 10_000.0), HERE, 10_000.0 + 2 * ROTATE_S)


def test_a_token_of_another_length_is_no_token(issuer):
    assert not issuer.valid(issuer.issue(HERE, 0.0)[:7], HERE, 0.0)
    assert not issuer.valid(bytes(9), HERE, 0.0)


BOOT, UNIX = 5_000.0, 1_800_000_000.0


def restarted(path, issuer, *, saved_at, down_s):
    """Another process with another monotonic clock, ``down_s`` after the issuer's secrets were written."""
    kept = KeptTokens(path)
    kept.save(issuer, saved_at, UNIX + saved_at)
    numbers = count(1000)
    again = TokenIssuer(lambda size: next(numbers).to_bytes(size, "big"), BOOT)
    return again, KeptTokens(path).load(again, BOOT, UNIX + saved_at + down_s)


@pytest.mark.parametrize("saved_at", [0.0, 200.0, 299.0])
@pytest.mark.parametrize("after_s", [0.0, 1.0, 150.0, 299.0])
def test_tokens_issued_after_the_secrets_were_written_serve_too(issuer, tmp_path, saved_at, after_s):
    """The next secret is written before it is used: a crash between two writes costs nothing."""
    again, loaded = restarted(tmp_path / "tokens.json", issuer, saved_at=saved_at, down_s=after_s + 5)
    assert loaded
    assert again.valid(issuer.issue(HERE, saved_at + after_s), HERE, BOOT)


def test_secrets_written_at_any_age_serve_after_a_restart(issuer, tmp_path):
    tokens = {at: issuer.issue(HERE, at) for at in (0.0, 100.0, 301.0, 550.0, 601.0)}
    again, loaded = restarted(tmp_path / "tokens.json", issuer, saved_at=610.0, down_s=60.0)
    assert loaded
    for at, token in tokens.items():
        if 670.0 - at <= 600.0:
            assert again.valid(token, HERE, BOOT), at
        assert not again.valid(token, THERE, BOOT)
    assert not again.valid(tokens[601.0], HERE, BOOT + ACCEPTED * ROTATE_S)


def test_a_long_rest_forgets_everything(issuer, tmp_path):
    token = issuer.issue(HERE, 0.0)
    again, loaded = restarted(tmp_path / "tokens.json", issuer, saved_at=0.0, down_s=100_000.0)
    assert loaded
    assert not again.valid(token, HERE, BOOT)


def test_the_file_is_the_owners_only_and_written_when_the_secrets_change(issuer, tmp_path):
    path = tmp_path / "tokens.json"
    kept = KeptTokens(path)
    kept.save(issuer, 0.0, UNIX)
    first = path.stat()
    assert first.st_mode & 0o777 == 0o600
    kept.save(issuer, 100.0, UNIX + 100)
    assert path.stat().st_ino == first.st_ino
    kept.save(issuer, 301.0, UNIX + 301)
    assert path.stat().st_ino != first.st_ino
    assert [each.name for each in tmp_path.iterdir()] == ["tokens.json"]
    assert "TokenIssuer()" in repr(issuer)


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[]",
        "{}",
        '{"version": 1, "saved_at": 1, "secrets": [], "age_s": 0}',
        '{"version": 1, "saved_at": 1, "secrets": ["zz"], "age_s": 0}',
        '{"version": 1, "saved_at": NaN, "secrets": ["00"], "age_s": NaN}',
        '{"version": 1, "saved_at": 1e400, "secrets": 5, "age_s": "x"}',
        '{"version": 2}',
    ],
)
def test_a_damaged_file_costs_a_warning(issuer, tmp_path, content, caplog):
    path = tmp_path / "tokens.json"
    path.write_text(content)
    token = issuer.issue(HERE, 0.0)
    assert not KeptTokens(path).load(issuer, 0.0, UNIX)
    assert "new write tokens" in caplog.text
    assert issuer.valid(token, HERE, 0.0)


def test_a_file_from_the_future_is_not_used(issuer, tmp_path):
    kept = KeptTokens(tmp_path / "tokens.json")
    kept.save(issuer, 0.0, UNIX + 50)
    assert not kept.load(issuer, 0.0, UNIX)


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
