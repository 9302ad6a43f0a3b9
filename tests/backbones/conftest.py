"""Every family of backbones as a tiny model."""

from pathlib import Path

import pytest

from motionexp.backbones.hunyuan import HunyuanBackbone
from tests.support.tiny_families import BARE_TEMPLATE, FAMILIES, Family


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    return family.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _bare_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HunyuanBackbone, "template", BARE_TEMPLATE)
