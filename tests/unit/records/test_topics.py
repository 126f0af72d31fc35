"""The topics of a network: made once, found by DHT key, and never more than the cap."""

from ipaddress import ip_address

from dhtvpn.records.topic import Topic
from dhtvpn.records.topics import MAX_TOPICS, NetworkTopics

SECRET = b"\2" * 32
ADDRESS = ip_address("10.1.2.3")


def test_topics_are_those_that_members_derive() -> None:
    topics = NetworkTopics(SECRET)
    assert topics.roster(5) == Topic.derive(SECRET, 5)
    assert topics.of_address(5, ADDRESS) == Topic.of_address(SECRET, 5, ADDRESS)
    assert topics.of_name(5, "laptop") == Topic.of_name(SECRET, 5, "laptop")
    assert topics.roster(5) is topics.roster(5)


def test_a_topic_that_was_made_is_found_by_its_dht_key() -> None:
    topics = NetworkTopics(SECRET)
    assert topics.by_dht_key(Topic.derive(SECRET, 5).dht_key) is None
    for topic in (topics.roster(5), topics.of_address(5, ADDRESS), topics.of_name(5, "laptop")):
        assert topics.by_dht_key(topic.dht_key) is topic


def test_the_one_used_longest_ago_is_forgotten() -> None:
    topics = NetworkTopics(SECRET)
    roster, second = topics.roster(0), topics.roster(1)
    for epoch in range(2, MAX_TOPICS + 1):
        topics.roster(epoch)
        topics.roster(0)
    assert topics.by_dht_key(roster.dht_key) is roster
    assert topics.by_dht_key(second.dht_key) is None
    assert topics.roster(1) == second


def test_secrets_are_not_shown() -> None:
    topics = NetworkTopics(SECRET)
    topics.roster(1)
    assert repr(topics) == "NetworkTopics(1 made)"
