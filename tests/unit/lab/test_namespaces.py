"""What the laboratory says before it starts, and what it takes for its own."""

import os
import shutil
from pathlib import Path

import pytest

from dhtvpn.errors import SystemRefusedError
from dhtvpn.lab import namespaces


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemRefusedError, match="run it as root, with sudo"):
        namespaces.check_requirements()


def test_missing_tools_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool, path: None if tool in {"ip", "nft"} else f"/bin/{tool}")
    with pytest.raises(SystemRefusedError, match=r"needs ip, nft: .*apt install iproute2 nftables"):
        namespaces.check_requirements()


def test_system_directories_are_searched_though_path_lacks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/opt/only")
    assert namespaces.search_path().split(os.pathsep)[:3] == ["/opt/only", "/usr/sbin", "/sbin"]


def test_a_tool_that_complains_or_is_absent_becomes_one_sentence() -> None:
    with pytest.raises(SystemRefusedError, match=r"^sh -c echo no 1>&2; exit 3 failed: no$"):
        namespaces.command(["sh", "-c", "echo no 1>&2; exit 3"])
    with pytest.raises(SystemRefusedError, match="needs the command no-such-tool"):
        namespaces.command(["no-such-tool"])


def test_only_names_of_ours_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dvl-01af-laptop", "dvl-zzzz-laptop", "dvl-01af", "other", "xdvl-01af-a"):
        (tmp_path / name).touch()
    monkeypatch.setattr(namespaces, "NAMESPACE_DIRECTORY", tmp_path)
    assert namespaces.all_of_ours() == ["dvl-01af-laptop"]
    monkeypatch.setattr(namespaces, "NAMESPACE_DIRECTORY", tmp_path / "absent")
    assert namespaces.all_of_ours() == []


def test_this_process_is_never_in_a_namespace_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvl-01af-laptop").touch()
    monkeypatch.setattr(namespaces, "NAMESPACE_DIRECTORY", tmp_path)
    assert namespaces.processes_in(["dvl-01af-laptop", "dvl-01af-gone"]) == []
    assert not namespaces.is_process_in(os.getpid(), ["dvl-01af-laptop"])
    assert namespaces.end_processes(["dvl-01af-laptop"]) == []
