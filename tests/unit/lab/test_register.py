"""The register finds every laboratory, and knows which of them still has an owner."""

import os
from pathlib import Path

from dhtvpn import files
from dhtvpn.lab import clean, register


def test_a_new_entry_is_running_and_ours(tmp_path: Path) -> None:
    entry = register.register("demo", tmp_path)
    (found,) = register.entries(tmp_path)
    assert found == entry
    assert found.state == "running"
    assert found.owner == os.getpid()
    assert found.prefix == f"dvl-{entry.tag}-"
    assert clean.removable(register_directory=tmp_path) == []
    assert clean.removable(include_running=True, register_directory=tmp_path) == [entry]


def test_tags_never_clash(tmp_path: Path) -> None:
    tags = {register.register("demo", tmp_path).tag for _ in range(50)}
    assert len(tags) == 50


def test_an_owner_with_another_start_time_is_a_stranger(tmp_path: Path) -> None:
    """The process id has been used again: the laboratory is nobody's."""
    entry = register.register("demo", tmp_path)
    path = entry.directory / "lab.json"
    content = files.read_json(path)
    assert content is not None
    files.write_json(path, {**content, "owner_started": content["owner_started"] + 1})
    (found,) = register.entries(tmp_path)
    assert found.state == "abandoned"
    assert clean.removable(register_directory=tmp_path) == [found]


def test_a_kept_laboratory_is_not_abandoned(tmp_path: Path) -> None:
    entry = register.mark_kept(register.register("demo", tmp_path))
    path = entry.directory / "lab.json"
    content = files.read_json(path)
    assert content is not None
    files.write_json(path, {**content, "owner_started": 0})
    (found,) = register.entries(tmp_path)
    assert found.state == "kept"
    assert not found.abandoned
    assert clean.removable(register_directory=tmp_path) == [found]


def test_a_damaged_entry_counts_as_abandoned(tmp_path: Path) -> None:
    for tag, content in (("0001", b"not JSON"), ("0002", b"[]"), ("0003", b'{"owner": "x"}'), ("0004", b"")):
        (tmp_path / tag).mkdir()
        (tmp_path / tag / "lab.json").write_bytes(content)
    (tmp_path / "0005").mkdir()
    found = register.entries(tmp_path)
    assert [entry.tag for entry in found] == ["0001", "0002", "0003", "0004", "0005"]
    assert all(entry.abandoned and entry.topology is None for entry in found)


def test_remove_takes_the_files_too_and_may_be_repeated(tmp_path: Path) -> None:
    entry = register.register("demo", tmp_path)
    (entry.directory / "laptop").mkdir()
    (entry.directory / "laptop" / "join.log").write_text("x")
    register.remove(entry)
    register.remove(entry)
    assert register.entries(tmp_path) == []
    assert register.entries(tmp_path / "absent") == []
