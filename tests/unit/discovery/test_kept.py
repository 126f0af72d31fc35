"""A node that was restarted takes the tokens of before, and rolls no slot back."""

import asyncio
import json

import pytest
from discovery_simulation import UNIX_START, Network, fake_envelope, run

from dhtvpn.discovery.kept import FLOORS, IDS, TOKENS, KeptState
from dhtvpn.discovery.node_ids import fits
from dhtvpn.discovery.own_ids import OwnIds
from dhtvpn.discovery.storage import Outcome
from dhtvpn.endpoint import Endpoint

KEY, SOMEBODY = bytes(20), Endpoint("203.0.113.1", 4690)


def kept(net, folder):
    return KeptState(folder, monotonic=asyncio.get_running_loop().time, unix_time=net.unix_time)


def test_tokens_and_floors_survive_a_restart(tmp_path):
    async def scenario():
        net = Network()
        loop = asyncio.get_running_loop()
        node = net.node(0)
        async with kept(net, tmp_path).keeping(node):
            await asyncio.sleep(700)
            token = node.tokens.issue(SOMEBODY, loop.time())
            node.storage.put(KEY, fake_envelope(KEY, 1, 5), SOMEBODY, net.unix_time())
            node.storage.put(KEY, fake_envelope(KEY, 2, 5, expires_in=710), SOMEBODY, net.unix_time())
            await asyncio.sleep(20)
        again = net.node(0)
        assert not again.tokens.valid(token, SOMEBODY, loop.time())
        async with kept(net, tmp_path).keeping(again):
            await asyncio.sleep(570)
            assert again.tokens.valid(token, SOMEBODY, loop.time())
            for writer in (1, 2):
                older = fake_envelope(KEY, writer, 4)
                assert again.storage.put(KEY, older, SOMEBODY, net.unix_time()) is Outcome.STALE
        await net.close()

    run(scenario())
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        TOKENS: 0o600,
        FLOORS: 0o600,
        IDS: 0o600,
    }


def test_after_a_crash_the_tokens_of_a_secret_that_was_not_in_use_yet_are_taken(tmp_path):
    async def scenario():
        net = Network()
        loop = asyncio.get_running_loop()
        node = net.node(0)
        context = kept(net, tmp_path).keeping(node)
        await context.__aenter__()
        await asyncio.sleep(310)  # between two looks at the secrets, just after they have changed
        token = node.tokens.issue(SOMEBODY, loop.time())
        files = {path: path.read_bytes() for path in tmp_path.iterdir()}
        await context.__aexit__(None, None, None)
        for path in tmp_path.iterdir():
            path.unlink()
        for path, content in files.items():
            path.write_bytes(content)
        again = net.node(0)
        async with kept(net, tmp_path).keeping(again):
            assert again.tokens.valid(token, SOMEBODY, loop.time())
        await net.close()

    run(scenario())


def test_what_cannot_be_read_or_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / FLOORS).write_bytes(b"rubbish")
    (tmp_path / TOKENS).write_bytes(b"rubbish")

    async def scenario():
        net = Network()
        node = net.node(0)
        async with kept(net, tmp_path).keeping(node):
            await asyncio.sleep(1)
            for path in tmp_path.iterdir():
                path.unlink()
            tmp_path.rmdir()
        assert node.storage.put(KEY, fake_envelope(KEY, 1, 1), SOMEBODY, UNIX_START) is Outcome.NEW
        await net.close()

    run(scenario())
    assert "without floors" in caplog.text
    assert "new write tokens" in caplog.text
    assert "cannot write" in caplog.text


def test_the_ids_survive_a_restart(tmp_path):
    async def scenario():
        net = Network()
        node = net.node(0)
        async with kept(net, tmp_path).keeping(node):
            pass
        again = net.node(0, own=OwnIds({4}, net.random.randbytes))
        async with kept(net, tmp_path).keeping(again):
            assert again.own.state() == node.own.state()
        elsewhere = net.node(1)
        async with kept(net, tmp_path).keeping(elsewhere):
            assert fits(elsewhere.node_id, net.endpoint(1).host), "what the machine knows itself is right"
        await net.close()

    run(scenario())


@pytest.mark.parametrize(
    "content",
    [
        b"rubbish",
        b"[]",
        b"{}",
        b'{"version": 2, "ids": {}}',
        b'{"version": 1, "ids": []}',
        b'{"version": 1, "ids": {"4": {"id": "00", "address": null}}}',
    ],
)
def test_damaged_ids_cost_a_warning_and_are_kept_aside(tmp_path, caplog, content):
    (tmp_path / IDS).write_bytes(content)

    async def scenario():
        net = Network()
        node = net.node(0)
        before = node.node_id
        async with kept(net, tmp_path).keeping(node):
            assert node.node_id == before
        await net.close()

    run(scenario())
    assert "starting with a new node id" in caplog.text
    copies = [path for path in tmp_path.iterdir() if path.name.startswith(IDS) and path.name != IDS]
    assert [path.read_bytes() for path in copies] == [content]
    assert json.loads((tmp_path / IDS).read_bytes())["version"] == 1
