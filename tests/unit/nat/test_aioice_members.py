"""The private members of aioice that nat/ relies on are there in the version that is installed."""

import importlib.metadata
import inspect
import subprocess
import sys

import aioice
import pytest
from aioice import ice, stun


def test_the_version_is_the_pinned_one() -> None:
    assert importlib.metadata.version("aioice").startswith("0.13.")


@pytest.mark.parametrize(
    "name",
    [
        "_closing",
        "_check_list",
        "_check_list_done",
        "_early_checks",
        "_early_checks_done",
        "_nominated",
        "_nominating",
        "_protocols",
        "_remote_candidates",
    ],
)
async def test_a_connection_has_the_attribute(name: str) -> None:
    assert hasattr(aioice.Connection(ice_controlling=True), name)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_add_remote_candidate", ["self", "remote_candidate", "network_host"]),
        ("_check_list_maybe_fail", ["self"]),
        ("_valid_username", ["self", "username"]),
        ("build_request", ["self", "pair", "nominate"]),
        ("check_complete", ["self", "pair"]),
        ("check_incoming", ["self", "message", "addr", "protocol"]),
        ("check_start", ["self", "pair"]),
        ("check_start_task", ["self", "pair"]),
        ("check_state", ["self", "pair", "state"]),
        ("data_received", ["self", "data", "component"]),
        ("protocol_lost", ["self", "protocol"]),
        ("request_received", ["self", "message", "addr", "protocol"]),
        ("switch_role", ["self", "ice_controlling"]),
    ],
)
def test_a_connection_has_the_method(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(ice.Connection, name)).parameters) == parameters


def test_a_message_keeps_what_its_integrity_covers() -> None:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    message.add_message_integrity(b"key")
    assert stun.parse_message(bytes(message))._integrity_data is not None


def test_pair_states_are_the_five_of_rfc_8445() -> None:
    assert [state.name for state in ice.CandidatePair.State] == [
        "FROZEN",
        "WAITING",
        "IN_PROGRESS",
        "SUCCEEDED",
        "FAILED",
    ]


def test_its_resolver_stays_out() -> None:
    """46 modules of dnspython, which nobody asks anything."""
    code = (
        "import sys, dhtvpn.daemon, dhtvpn.assembly; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "aioice" in done.stdout.split() and "dns" not in done.stdout.split()


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
async def test_a_connection_takes_candidates_without_it(host: str) -> None:
    connection = aioice.Connection(ice_controlling=True)
    candidate = f"1 1 udp 1 {host} 5000 typ host"
    await connection.add_remote_candidate(aioice.Candidate.from_sdp(candidate))
    assert [remote.host for remote in connection.remote_candidates] == [host]


async def test_an_answer_passes_through_a_protocol_that_knows_its_connection() -> None:
    assert list(inspect.signature(ice.StunProtocol.send_stun).parameters) == ["self", "message", "addr"]
    connection = aioice.Connection(ice_controlling=True)
    assert ice.StunProtocol(connection).receiver is connection
