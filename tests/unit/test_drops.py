from dhtvpn.drops import Drops


def test_counts_by_room_and_reason_in_order() -> None:
    drops = Drops()
    drops.count("record", "signature")
    drops.count("dht", "size", 3)
    drops.count("record", "signature")
    assert list(drops.as_dict().items()) == [("dht.size", 3), ("record.signature", 2)]
    assert drops.total() == 5


def test_merge_sets_what_another_process_counted() -> None:
    drops = Drops()
    drops.count("record", "seal")
    drops.merge({"engine.replay": 4})
    drops.merge({"engine.replay": 6})
    assert drops.as_dict() == {"engine.replay": 6, "record.seal": 1}


def test_starts_empty() -> None:
    assert Drops().as_dict() == {}
    assert Drops().total() == 0
