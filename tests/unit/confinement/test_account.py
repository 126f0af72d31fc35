"""Handing over a directory follows nothing that its owner may have put there. Needs root."""

import os
from pathlib import Path

import pytest

from dhtvpn import files
from dhtvpn.confinement import account
from dhtvpn.confinement.account import Account, give, out_of_reach, take_over

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

A, B = 54321, 54322  # no users of this machine


def owner(path: Path) -> int:
    return path.lstat().st_uid


def test_a_directory_with_its_files_changes_hands(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "file").write_text("")
    for user in (A, B, 0):
        give(own, user)
        assert owner(own) == owner(own / "file") == user


def test_what_the_owner_before_has_put_there_does_not(tmp_path: Path) -> None:
    own, secret = tmp_path / "own", tmp_path / "secret"
    own.mkdir()
    give(own, A)
    secret.write_text("of root")
    (own / "roots").write_text("not the owner's")
    (own / "link").symlink_to(secret)
    os.link(secret, own / "hard")
    os.mkfifo(own / "pipe")
    (own / "directory").mkdir()
    (own / "theirs").write_text("")
    os.chown(own / "theirs", A, A)
    os.link(own / "theirs", own / "twice")
    give(own, B)
    assert owner(own) == B
    assert {path.name for path in own.iterdir() if owner(path) == B} == set()
    assert owner(secret) == 0


def test_what_root_writes_there_later_is_for_the_new_owner(tmp_path: Path) -> None:
    give(tmp_path, A)
    files.write_json(tmp_path / "state.json", {"a": 1})
    assert owner(tmp_path / "state.json") == A
    assert files.read_json(tmp_path / "state.json") == {"a": 1}


def test_a_link_to_what_only_root_reads_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "state.json").symlink_to("/etc/shadow")
    with pytest.raises(files.SystemRefusedError):
        files.read_json(tmp_path / "state.json")


def test_what_lies_behind_a_closed_directory_is_out_of_reach(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert out_of_reach(Account(A, A), reading=[Path("/etc"), tmp_path], passing=[]) == tmp_path
    assert out_of_reach(Account(A, A), reading=[], passing=[tmp_path / "x"]) == tmp_path / "x"
    assert out_of_reach(Account(A, A), reading=[Path("/etc/passwd")], passing=[Path("/etc")]) is None
    assert os.geteuid() == 0


def test_without_the_user_the_directories_are_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(tmp_path, A)
    monkeypatch.setattr(account, "account", lambda: None)
    assert take_over([tmp_path]) is None
    assert owner(tmp_path) == 0


def test_with_the_user_the_way_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "networks" / "home"
    own.mkdir(parents=True)
    for path in (own, own.parent):
        path.chmod(0o700)
    reached = Account(A, A)
    monkeypatch.setattr(account, "account", lambda: reached)
    monkeypatch.setattr(account, "code", list)
    assert take_over([own]) is None, "the temporary directory is closed"
    assert owner(own) == 0
    for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        path.chmod(0o711)
    assert take_over([own]) == reached
    assert owner(own) == A and owner(own.parent) == 0
    assert own.parent.stat().st_mode & 0o777 == 0o711 and own.stat().st_mode & 0o777 == 0o700


def test_root_is_no_user_to_become() -> None:
    assert account.account("root") is None
    assert account.account("nobody-of-that-name") is None
