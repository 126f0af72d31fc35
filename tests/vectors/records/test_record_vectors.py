"""docs/protocol/record.md, byte for byte. The JSON was computed from that page without this package."""

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.records import envelope as envelopes
from dhtvpn.records import record as records
from dhtvpn.records.record import Candidate, CandidateKind, EndpointRecord
from dhtvpn.records.topic import Topic

HERE = Path(__file__).parent


def vectors(name: str) -> list[dict[str, Any]]:
    return json.loads((HERE / name).read_text())


@pytest.mark.parametrize("vector", vectors("topic.json"))
def test_topic(vector: dict[str, Any]) -> None:
    topic = Topic.derive(bytes.fromhex(vector["secret"]), vector["epoch"])
    assert topic.public_key.hex() == vector["public_key"]
    assert topic.dht_key.hex() == vector["dht_key"]
    assert bytes(topic.signing_key).hex() == vector["signing_seed"]
    assert topic.sealing_key.hex() == vector["sealing_key"]
    for node_key, slot in vector["slots"].items():
        assert topic.slot(bytes.fromhex(node_key)).hex() == slot


@pytest.mark.parametrize("vector", vectors("topic.json"))
def test_topics_of_addresses_and_names(vector: dict[str, Any]) -> None:
    secret, epoch = bytes.fromhex(vector["secret"]), vector["epoch"]
    for address, dht_key in vector["address_dht_keys"].items():
        assert Topic.of_address(secret, epoch, ip_address(address)).dht_key.hex() == dht_key
    for name, dht_key in vector["name_dht_keys"].items():
        assert Topic.of_name(secret, epoch, name).dht_key.hex() == dht_key


@pytest.mark.parametrize("vector", vectors("envelope.json"), ids=lambda vector: vector["what"])
def test_record_and_envelope(vector: dict[str, Any]) -> None:
    identity = Identity.from_seed(bytes.fromhex(vector["seed"]))
    topic = Topic.derive(bytes.fromhex(vector["secret"]), vector["epoch"])
    record = EndpointRecord(
        identity.node_key,
        vector["name"],
        bytes.fromhex(vector["session_nonce"]),
        tuple(Candidate(Endpoint(host, port), CandidateKind[k]) for host, port, k in vector["candidates"]),
        vector["ipv4_attempt"],
        vector["since"],
        vector["features"],
        vector["leaving"],
    )
    assert records.encode(record).hex() == vector["record"]
    nonce = bytes.fromhex(vector["nonce"])
    sealed = envelopes.seal(
        record, topic, identity, vector["sequence"], vector["expires"], lambda size: nonce[:size]
    )
    assert sealed.hex() == vector["envelope"]
    seen = envelopes.inspect(sealed, topic.dht_key, vector["expires"] - 1)
    assert seen.sequence == vector["sequence_on_wire"]
    assert len(sealed) <= envelopes.MAX_ENVELOPE
    opened = envelopes.open_record(sealed, topic, vector["expires"] - 1)
    assert opened == envelopes.OpenedRecord(record, vector["sequence"], vector["expires"])
