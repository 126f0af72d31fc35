"""The private members of aioice that nat/ relies on are there in the version that is installed."""

import importlib.metadata
import inspect

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
