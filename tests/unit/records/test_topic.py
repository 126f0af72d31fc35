from dhtvpn.records.topic import Topic, dht_key_of

SECRET = b"\2" * 32


def test_members_derive_the_same_topic() -> None:
    assert Topic.derive(SECRET, 5) == Topic.derive(SECRET, 5)


def test_topics_of_other_epochs_and_networks_have_nothing_in_common() -> None:
    topics = [Topic.derive(SECRET, 5), Topic.derive(SECRET, 6), Topic.derive(b"\3" * 32, 5)]
    for part in ("public_key", "dht_key", "signing_key", "sealing_key", "slot_key"):
        assert len({bytes(getattr(topic, part)) for topic in topics}) == 3
    assert len({topic.slot(b"\1" * 32) for topic in topics}) == 3


def test_a_storing_node_can_check_the_dht_key() -> None:
    topic = Topic.derive(SECRET, 5)
    assert len(topic.dht_key) == 20
    assert dht_key_of(topic.public_key) == topic.dht_key


def test_every_writer_has_a_slot_of_its_own() -> None:
    topic = Topic.derive(SECRET, 5)
    slots = {topic.slot(bytes([number]) * 32) for number in range(100)}
    assert len(slots) == 100
    assert {len(slot) for slot in slots} == {16}


def test_secret_keys_are_not_shown() -> None:
    topic = Topic.derive(SECRET, 5)
    for secret in (bytes(topic.signing_key), topic.sealing_key, topic.slot_key, SECRET):
        assert repr(secret)[2:-1] not in repr(topic)
    assert "signing_key" not in repr(topic)
