"""A Docker engine of the test's own: in a network namespace that nothing leads out of, with its data in a
directory of its own, so that the machine's interfaces, rules and images stay as they are."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ("dockerd", "docker", "docker-compose", "debootstrap", "nsenter", "ip")
PLACES = [Path(name) for name in ("/etc/docker/key.json", "/etc/docker", "/run/docker", "/run/containerd")]
"""Where dockerd keeps a key and its plugins' sockets whatever it is told; removed unless they were there."""

START_S = 60.0
STOP_S = 60.0
BASE_PACKAGES = "python3,python3-venv,iproute2,iputils-ping,nftables,procps"


def missing_tools() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None]


class Engine:
    """A running dockerd. ``directory`` is empty and short: sockets are made in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.namespace = f"dhtvpn-docker-{os.getpid()}"
        self._left_behind = [place for place in PLACES if not place.exists()]
        self._log = (directory / "dockerd.log").open("w")
        self._environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{directory}/docker.sock",
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "COMPOSE_PROJECT_NAME": "dhtvpnlab",
        }
        run(["ip", "netns", "add", self.namespace])
        run(["ip", "-n", self.namespace, "link", "set", "lo", "up"])
        # nsenter, not `ip netns exec`: that would hide the control groups, which are mounted below /sys.
        self._process = subprocess.Popen(
            [
                "nsenter",
                f"--net=/run/netns/{self.namespace}",
                "dockerd",
                *("--host", self._environment["DOCKER_HOST"]),
                *("--data-root", str(directory / "data")),
                *("--exec-root", str(directory / "run")),
                *("--pidfile", str(directory / "dockerd.pid")),
                *("--bip", "198.19.250.1/24"),
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self) -> str | None:
        """Return when it answers; a sentence when it cannot be started here."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self.docker("version", check=False).returncode == 0:
                return None
            time.sleep(0.3)
        return f"dockerd does not start: {(self.directory / 'dockerd.log').read_text()[-600:]}"

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(["docker", *words], self._environment, check=check)

    def compose(self, *words: str, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
        file = str(ROOT / "tests/containers/compose.yaml")
        return run(["docker-compose", "-f", file, *words], {**self._environment, **settings}, check=check)

    def stop(self) -> None:
        """End it with its containers, remove its namespace and its data."""
        self.docker("system", "prune", "--force", "--all", "--volumes", check=False)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        run(["ip", "netns", "del", self.namespace])
        shutil.rmtree(self.directory)
        for place in self._left_behind:
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)


def run(
    command: Sequence[str], environment: dict[str, str] | None = None, *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """To its end, at most a few minutes; what it said is in the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
    if check and done.returncode != 0:
        said = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        raise AssertionError(f"{' '.join(command)} failed ({done.returncode}):\n{said}")
    return done


def import_base(engine: Engine, name: str, directory: Path) -> None:
    """A Debian of this machine's own release as the image ``name``: no image is pulled."""
    codename = run(["sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"]).stdout.strip()
    root = directory / "base"
    command = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", codename, str(root)]
    run([*command, _mirror(codename)])
    archive = directory / "base.tar"
    run(["tar", "-C", str(root), "-cf", str(archive), "."])
    shutil.rmtree(root)
    engine.docker("import", str(archive), name)
    archive.unlink()


def _mirror(codename: str) -> str:
    """Where this machine's own packages come from."""
    command = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
    for line in run(command).stdout.splitlines():
        release, _, address = line.partition(" ")
        if release == codename:
            return address
    raise AssertionError(f"apt has no source of {codename}")


def assemble_context(directory: Path) -> Path:
    """What the image is built from: the package and everything that it needs, as wheels."""
    context, source = directory / "context", directory / "source"
    shutil.copytree(ROOT / "tests/containers", context / "tests/containers")
    # A copy: building leaves a folder behind, which the next build would take old files from.
    shutil.copytree(ROOT / "dhtvpn", source / "dhtvpn", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(context / "wheels"), str(source)]
    )
    return context
