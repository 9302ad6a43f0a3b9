"""Every family of backbones as a tiny model."""

from pathlib import Path

import pytest

from tests.support.tiny_families import FAMILIES, Family


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    return family.save(tmp_path_factory.mktemp("models") / "tiny")
