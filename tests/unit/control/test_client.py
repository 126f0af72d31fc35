"""What the client says when there is no proper node to talk to."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dhtvpn import errors
from dhtvpn.control.client import ControlClient, listening_process, not_permitted


def test_no_socket(run_dir: Path) -> None:
    with pytest.raises(errors.NotRunningError, match="home is not running here: start it with"):
        ControlClient(run_dir / "home.sock").status()
    assert listening_process(run_dir / "home.sock") is None


def test_dead_socket(run_dir: Path) -> None:
    run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(run_dir / "home.sock"))
    with pytest.raises(errors.NotRunningError):
        ControlClient(run_dir / "home.sock").status()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", errors.NotRunningError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi!", errors.DhtVpnError),
        (b"SSH-2.0-something\r\n", errors.NotRunningError),
        (b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n[]", errors.DhtVpnError),
    ],
)
def test_something_else_listens(run_dir: Path, answer: bytes, expected: type[Exception]) -> None:
    run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run_dir / "home.sock"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(expected):
            ControlClient(run_dir / "home.sock").status()
        thread.join()


def test_a_node_that_does_not_answer(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run_dir / "home.sock"))
        listener.listen()
        client = ControlClient(run_dir / "home.sock")
        with pytest.raises(errors.TimedOutError, match="does not answer"):
            client._ask("GET", "/status", timeout_s=0.05)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root to be refused")
def test_no_permission_says_what_to_do(run_dir: Path) -> None:
    run_dir.mkdir(mode=0o700)
    run_dir.parent.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run_dir / "home.sock"))
        listener.listen()
        code = (
            "import os, sys; from pathlib import Path; from dhtvpn.control.client import ControlClient\n"
            "os.setuid(65534)\n"
            "try: ControlClient(Path(sys.argv[1])).status()\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        command = [sys.executable, "-c", code, str(run_dir / "home.sock")]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert said.startswith("SystemRefusedError not permitted to use")
    assert "sudo" in said
    assert "group dhtvpn" in said
    assert said.strip().endswith(str(not_permitted(run_dir / "home.sock"))[-30:])
