"""bootstrap/: what a volunteer installs agrees with the package."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from dhtvpn.cli.bootstrap import DEFAULT_MEMORY_MB
from dhtvpn.volunteer import PROGRAM_OCTETS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "bootstrap"

STARTED = ["dhtvpn.cli.main", "dhtvpn.cli.bootstrap", "dhtvpn.volunteer"]
"""What ``dhtvpn bootstrap`` imports,"""

SHOWN = ["dhtvpn.cli.bootstrap_view", "dhtvpn.control.bootstrap_figures", "dhtvpn.control.client"]
"""and what ``dhtvpn bootstrap --status`` does besides."""


def listed() -> set[str]:
    lines = (FOLDER / "requirements.txt").read_text().splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def with_what_they_require(texts: set[str]) -> set[str]:
    """The distributions of these requirements, and all that those require here, without extras."""
    found: set[str] = set()
    open_ones = [Requirement(text) for text in texts]
    while open_ones:
        requirement = open_ones.pop()
        name = canonical(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and name not in found:
            found.add(name)
            open_ones += [Requirement(text) for text in metadata.requires(name) or ()]
    return found


def loaded(modules: list[str]) -> set[str]:
    """Top-level modules, with a file, that importing these brings into an interpreter."""
    code = (
        "import sys, json; before = set(sys.modules)\n"
        f"import {', '.join(modules)}\n"
        "new = {n: m for n, m in sys.modules.items() if n not in before and getattr(m, '__file__', None)}\n"
        "print(json.dumps(sorted({n.partition('.')[0] for n in new})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


def test_the_requirements_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert listed() <= set(project["dependencies"])


def test_the_requirements_are_all_that_a_bootstrap_node_imports():
    """The image installs these and nothing else: one that is missing is a node that does not start."""
    distributions = metadata.packages_distributions()
    imported = {
        canonical(name)
        for module in loaded([*STARTED, *SHOWN])
        for name in distributions.get(module, ())
        if name != "dhtvpn"
    }
    assert len(imported) > 5
    installed = with_what_they_require(listed())
    assert imported <= installed
    unused = {canonical(Requirement(text).name) for text in listed()} - imported
    assert unused == set(), "installed for nothing"


def test_the_compiled_packages_are_those_that_the_page_names():
    installed = with_what_they_require(listed())
    compiled = {
        name for name in installed if any(file.suffix == ".so" for file in metadata.files(name) or ())
    }
    assert compiled == {"pynacl", "cffi", "cbor2"}


def test_the_image_is_built_from_what_it_copies_and_nothing_else():
    """Without .dockerignore the whole of .git and .venv would be sent to the builder."""
    image = (FOLDER / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in image.splitlines() if line.startswith("COPY ")]
    sources = {name.removeprefix("./") for names in copied for name in names if names[0][:2] != "--"}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == sources
    assert all((ROOT / name).exists() for name in sources)


def test_the_limits_of_its_surroundings_leave_room_for_its_own():
    """The kernel's limit that the node sets itself comes first, and the page says what to raise."""
    unit, compose = (FOLDER / "dhtvpn-bootstrap.service").read_text(), (FOLDER / "compose.yaml").read_text()
    limits = [re.search(r"^MemoryMax=(\d+)M$", unit, re.M), re.search(r":-(\d+)m\}$", compose, re.M)]
    own = DEFAULT_MEMORY_MB * 1_000_000 + PROGRAM_OCTETS
    for limit in limits:
        assert limit is not None
        assert int(limit[1]) == DEFAULT_MEMORY_MB + 320
        assert int(limit[1]) << 20 > own
    assert "`--memory 1000` also set `MemoryMax=1320M`" in (FOLDER / "README.md").read_text()


def test_every_way_to_run_it_starts_the_same_command():
    unit, image = (FOLDER / "dhtvpn-bootstrap.service").read_text(), (FOLDER / "Dockerfile").read_text()
    assert "ExecStart=/opt/dhtvpn/bin/dhtvpn bootstrap --listen 0.0.0.0:4690 --listen [::]:4690\n" in unit
    assert 'ENTRYPOINT ["/opt/dhtvpn/bin/dhtvpn", "bootstrap"]' in image
    assert 'CMD ["--listen", "0.0.0.0:4690", "--listen", "[::]:4690"]' in image


def test_the_base_image_is_an_argument():
    image = (FOLDER / "Dockerfile").read_text()
    assert image.count("FROM ${BASE}") == image.count("FROM ") == 2
