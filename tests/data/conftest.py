from pathlib import Path

import pytest

from tests.support.made_suites import make_tgve


@pytest.fixture(scope="session")
def whole_tgve(tmp_path_factory) -> Path:
    """All of TGVE in small frames; not to be changed (see `linked`)."""
    return make_tgve(tmp_path_factory.mktemp("tgve") / "loveu-tgve-2023")
