import errno
import os
import stat
from pathlib import Path

import pytest

from dhtvpn import files
from dhtvpn.errors import DamagedStateError, SystemRefusedError


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_written_files_are_private_and_leave_nothing_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "state"
    files.write_atomic(path, b"one")
    files.write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(tmp_path) == ["state"]


def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    files.write_atomic(path, b"old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(SystemRefusedError, match="No space left"):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["state"]


def test_a_missing_directory_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SystemRefusedError, match=str(tmp_path / "none")):
        files.write_atomic(tmp_path / "none" / "state", b"x")


def test_make_directory_makes_private_ones_and_refuses_below_a_file(tmp_path: Path) -> None:
    files.make_directory(tmp_path / "a" / "b")
    files.make_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(SystemRefusedError, match="--state-dir"):
        files.make_directory(tmp_path / "file" / "c")


def test_read_bytes(tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert files.read_bytes(path) is None
    path.write_bytes(b"12345")
    assert files.read_bytes(path, limit=5) == b"12345"
    with pytest.raises(DamagedStateError, match=str(path)):
        files.read_bytes(path, limit=4)
    with pytest.raises(SystemRefusedError, match=str(tmp_path)):
        files.read_bytes(tmp_path)


def test_json_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert files.read_json(path) is None
    files.write_json(path, {"b": [1, "ü"], "a": None})
    assert files.read_json(path) == {"a": None, "b": [1, "ü"]}
    assert path.read_text().endswith("}\n")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"1", b"\xff\xfe\xfd", b"[" * 100_000, b"1" * 5000])
def test_damaged_json_is_named_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(DamagedStateError, match=str(path)):
        files.read_json(path)
    assert path.read_bytes() == content


def test_copies_of_damaged_files_are_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for number, content in enumerate((b"one", b"two", b"three")):
        files.write_atomic(path, content)
        copy = files.keep_copy(path)
        assert copy.name == ("state.damaged" if number == 0 else f"state.damaged-{number + 1}")
        assert copy.read_bytes() == path.read_bytes() == content
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_an_identical_copy_serves_again(tmp_path: Path) -> None:
    path = tmp_path / "state"
    files.write_atomic(path, b"one")
    assert files.keep_copy(path) == files.keep_copy(path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_copy_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemRefusedError):
        files.keep_copy(tmp_path / "none")
