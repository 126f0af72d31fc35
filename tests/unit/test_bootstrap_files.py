"""bootstrap/: what a volunteer installs agrees with the package."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "bootstrap"


def test_the_requirements_are_those_of_the_package():
    listed = {
        line.strip()
        for line in (FOLDER / "requirements.txt").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert listed <= set(project["dependencies"])


def test_every_way_to_run_it_starts_the_same_command():
    unit, image = (FOLDER / "dhtvpn-bootstrap.service").read_text(), (FOLDER / "Dockerfile").read_text()
    assert "ExecStart=/opt/dhtvpn/bin/dhtvpn bootstrap --listen 0.0.0.0:4690 --listen [::]:4690\n" in unit
    assert 'ENTRYPOINT ["/opt/dhtvpn/bin/dhtvpn", "bootstrap"]' in image
    assert 'CMD ["--listen", "0.0.0.0:4690", "--listen", "[::]:4690"]' in image


def test_the_base_image_is_an_argument():
    image = (FOLDER / "Dockerfile").read_text()
    assert image.count("FROM ${BASE}") == image.count("FROM ") == 2
