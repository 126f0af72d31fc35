"""The node and its port mapping: which endpoints are published, the nonce, and leaving."""

from pathlib import Path

import pytest
from fake_gateway import GATEWAY, PORT

from dhtvpn.drops import Drops
from dhtvpn.endpoint import Endpoint
from dhtvpn.identity import Identity
from dhtvpn.membership.network_id import Mode, NetworkId
from dhtvpn.networks import Cipher
from dhtvpn.node.config import NodeConfig
from dhtvpn.node.port_mapping import open_port_mapper, pcp_nonce
from dhtvpn.node.surroundings import Surroundings
from dhtvpn.records.record import Candidate, CandidateKind

NETWORK_ID = NetworkId(Mode.OPEN, bytes([1]) * 32, bytes([2]) * 32, None)
MAPPED = Endpoint("198.18.5.5", PORT)


@pytest.fixture
def around() -> Surroundings:
    return Surroundings(network_id=NETWORK_ID, port=PORT, host_addresses=None, survey=None)  # type: ignore[arg-type]


def test_a_mapping_is_a_candidate_before_reflexive_ones(around: Surroundings) -> None:
    seen = Endpoint("198.18.5.5", 777)
    around.mapped_endpoints, around.public_endpoints = (MAPPED,), (seen,)
    assert around.candidates() == (
        Candidate(MAPPED, CandidateKind.MAPPED),
        Candidate(seen, CandidateKind.REFLEXIVE),
    )


def test_a_mapping_elsewhere_than_strangers_see_us_is_not_published(around: Surroundings) -> None:
    around.mapped_endpoints = (Endpoint("192.0.2.66", PORT),)
    assert len(around.candidates()) == 1, "while nobody has seen us the router is believed"
    seen = Endpoint("198.18.5.5", 777)
    around.public_endpoints = (seen,)
    assert around.candidates() == (Candidate(seen, CandidateKind.REFLEXIVE),)


def test_a_mapping_inside_the_overlay_is_not_published(around: Surroundings) -> None:
    around.mapped_endpoints = (Endpoint("127.0.0.1", PORT), Endpoint("239.1.1.1", PORT))
    assert around.candidates() == ()


def test_the_nonce_is_the_same_in_every_run_and_another_for_everybody_else() -> None:
    identity = Identity.from_seed(bytes(32))
    nonce = pcp_nonce(identity, GATEWAY, PORT)
    assert nonce == pcp_nonce(Identity.from_seed(bytes(32)), GATEWAY, PORT) and len(nonce) == 12
    others = {
        pcp_nonce(identity, GATEWAY, PORT + 1),
        pcp_nonce(identity, GATEWAY._replace(own=GATEWAY.address), PORT),
        pcp_nonce(Identity.from_seed(bytes([1]) * 32), GATEWAY, PORT),
    }
    assert len(others | {nonce}) == 4


@pytest.mark.parametrize("wanted", [True, False])
async def test_there_is_no_mapper_where_none_is_wanted(wanted: bool, tmp_path: Path) -> None:
    config = NodeConfig(
        *(tmp_path, tmp_path, "home", NETWORK_ID, "desk", (), None, None, Cipher.AUTO, tmp_path),
        port_mapping=wanted,
    )
    mapper = open_port_mapper(
        config,
        PORT,
        "none0",
        identity=Identity.from_seed(bytes(32)),
        say=lambda kind, text: None,
        drops=Drops(),
        random_bytes=bytes,
    )
    assert (mapper is not None) == wanted
