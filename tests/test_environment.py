"""pyproject.toml, constraints.txt, environment.yml and the Makefile say one thing."""

import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins(root):
    lines = [line.split("#")[0].strip() for line in (root / "constraints.txt").read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    assert all(re.fullmatch(r"==[\w.]+", str(requirement.specifier)) for requirement in requirements)
    pins = {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in requirements}
    assert len(pins) == len(requirements), "a package is pinned twice"
    return pins


def _direct(project):
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for text in [*project["dependencies"], *(text for extra in extras for text in extra)]]


def test_every_direct_dependency_is_pinned_within_its_range(project, pins):
    for requirement in _direct(project):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement.name} is in pyproject.toml but not in constraints.txt"
        assert requirement.specifier.contains(pin), f"{requirement} does not allow the pinned {pin}"


def test_the_versions_that_were_asked_for(project, pins):
    assert pins["torch"] == "2.13.0"
    transformers = next(r for r in _direct(project) if r.name == "transformers")
    assert not transformers.specifier.contains("5.16.0")
    assert transformers.specifier.contains("5.17.0")
    assert not transformers.specifier.contains("6.0.0")
    assert [int(part) for part in pins["numpy"].split(".")[:2]] < [2, 5], "numpy 2.5 needs Python 3.12"
    assert project["requires-python"] == ">=3.11"


def test_what_must_not_be_needed(project, pins):
    forbidden = {"torchvision", "timm"}
    assert not forbidden & set(pins)
    assert not forbidden & {canonicalize_name(requirement.name) for requirement in _direct(project)}


def test_installed_versions_are_the_pinned_ones(pins):
    from importlib.metadata import distributions

    installed = {canonicalize_name(found.name): found.version.split("+")[0] for found in distributions()}
    other = {
        name: (pins[name], installed[name]) for name in pins if name in installed and installed[name] != pins[name]
    }
    assert not other, f"pinned and installed differ: {other}"


def test_environment_yml_installs_through_pyproject(root, project):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert plain == ["python=3.11", "pip"], "packages belong in pyproject.toml, not in a second list"
    [nested] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert nested[0] == "-c constraints.txt"
    [install] = nested[1:]
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", install)[1].split(",")
    assert set(extras) == set(project["optional-dependencies"])


def test_make_installs_through_the_same_files(root):
    makefile = (root / "Makefile").read_text()
    installs = re.findall(r"pip install .*", makefile.replace("python install pip", ""))
    assert [line.split("-c constraints.txt ")[1] for line in installs] == [
        "torch",
        "-e '.[notebooks,films,dicom,test]'",
    ]


def test_make_needs_nothing_but_its_stamp(root):
    """With .venv/.ready newer than the lists, a second `make install` has nothing to do."""
    quiet = subprocess.run(
        ["make", "--dry-run", "--old-file=.venv/.ready", "install"], cwd=root, capture_output=True, text=True
    )
    assert quiet.returncode == 0
    assert "pip install" not in quiet.stdout


def test_templates_travel_with_the_package(root):
    package = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    template = root / "sa2va_lab" / "reports" / "template"
    shipped = {path for pattern in package["sa2va_lab.reports"] for path in template.parent.glob(pattern)}
    assert {path for path in template.rglob("*") if path.is_file()} <= shipped
