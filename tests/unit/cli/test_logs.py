"""A log without addresses: none gets through, whatever logs it, and times of day stay."""

import logging

import pytest

from dhtvpn.cli import logs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("dropped 198.18.0.1:4690: no answer", "dropped [address]: no answer"),
        ("dropped 198.18.0.1: no answer", "dropped [address]: no answer"),
        ("no answer from [2001:db8::1]:4690, [2001:db8::2]:1", "no answer from [address], [address]"),
        ("from 2001:db8::1.", "from [address]."),
        ("Endpoint(host='192.0.2.1', port=9)", "Endpoint(host='[address]', port=9)"),
        ("(192.0.2.1)", "([address])"),
        ("2026-01-02 12:34:56,789 INFO x", "2026-01-02 12:34:56,789 INFO x"),
        (
            "version 1.2.3, 12:34, 3 nodes, 5.5 s, dead:beef",
            "version 1.2.3, 12:34, 3 nodes, 5.5 s, dead:beef",
        ),
        ("::1 and ::ffff:192.0.2.1", "[address] and [address]"),
        ("node.example.net:4690", "node.example.net:4690"),
    ],
)
def test_addresses_are_replaced(text, shown):
    assert logs.without_addresses(text) == shown


@pytest.fixture
def root_logging():
    root, ours = logging.getLogger(), logging.getLogger("dhtvpn")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


@pytest.mark.parametrize("addresses", [False, True])
def test_no_line_shows_one_at_any_level_unless_asked(root_logging, capsys, addresses):
    logs.start(2, addresses=addresses)
    log = logging.getLogger("dhtvpn.discovery")
    log.debug("dropped %s: no answer", "198.18.0.1:4690")
    try:
        raise ValueError("bad 198.18.0.1")
    except ValueError:
        log.warning("odd", exc_info=True)
    said = capsys.readouterr().err
    assert ("198.18.0.1" in said) is addresses
    assert "no answer" in said
    assert "ValueError" in said
