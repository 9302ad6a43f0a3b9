import re
import tomllib
from collections import defaultdict
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, list[str]]:
    """Version(s) of each locked package; more than one where they differ between Pythons."""
    versions = defaultdict[str, list[str]](list)
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ \\]+)", LOCK, re.MULTILINE):
        versions[canonicalize_name(name)].append(version)
    return versions


def test_the_lock_names_no_address():
    assert "://" not in LOCK
    assert not re.search(r"^\s*(-i|--index|--extra-index|--find-links|-e|--trusted)", LOCK, re.MULTILINE)


def test_every_locked_file_has_its_hash():
    entries = re.split(r"\n(?=[A-Za-z0-9])", LOCK.strip())
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)


def test_what_is_asked_for_is_locked_as_asked():
    lines = (ROOT / "requirements.in").read_text().splitlines()
    for line in (line for line in lines if line and line[0] != "#"):
        requirement = Requirement(line)
        (version,) = pins()[canonicalize_name(requirement.name)]
        assert str(requirement.specifier) == f"=={version}"


def test_the_lock_is_within_the_ranges_of_pyproject():
    requirements = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, requirements):
        versions = pins()[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_torch_may_be_2_11_to_2_15():
    (torch,) = (line for line in map(Requirement, PROJECT["dependencies"]) if line.name == "torch")
    assert all(torch.specifier.contains(f"2.{minor}.0") for minor in (11, 12, 13, 14, 15))
