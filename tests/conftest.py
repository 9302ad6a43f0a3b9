"""What several tests share: a model's folder without weights, enough for all that is checked before torch."""

import gc
import importlib
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from tests.support.words import WORDS

gc.disable()  # while libraries and the tests' modules are imported

# While a checked module is imported, bytecode is looked for under another name, also that of the
# libraries which it imports: those that are there already are not compiled again.
for library in ("diffusers", "peft", "scipy.stats", "torchvision.io", "transformers"):
    importlib.import_module(library)

# Shapes and types of the numerical interfaces are checked at every call; a whole number does for a float.
install_import_hook(
    [
        "motionexp.backbones",
        "motionexp.diffusion",
        "motionexp.probes.tree",
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # libraries report what was not freed at the end


@pytest.fixture(scope="module", autouse=True)
def _imports_are_no_garbage() -> None:
    """Keep imported objects out of `gc.collect()`: a job calls it several times, at 0.5 s each with them.

    They stay out to the end: else this very collection would take 0.5 s in each module.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A closed vocabulary of `WORDS` and DDIM's own schedule, in a pipeline's layout."""
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"beta_schedule": "linear"}))
    ids = {word: number for number, word in enumerate(("<unk>", *WORDS))}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens(["<unk>"])
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"unk_token": "<unk>"}))
    return folder


@pytest.fixture
def base(model_folder: Path, tmp_path: Path) -> list[str]:
    """Overrides with which a job is fine and writes below `tmp_path` alone."""
    return [f"model.path={model_folder}", f"output={tmp_path / 'out'}"]


@pytest.fixture
def quiet(monkeypatch) -> Iterator[None]:
    """Undoes what a run leaves in the process: Hydra's log handlers, and a variable of the environment."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def jobs(monkeypatch):
    from tests.support.stub_jobs import Jobs  # which imports the command, after the hook above

    jobs = Jobs()
    for module in ("run", "dry_run", "probe_job", "external", "sweep_cost"):
        monkeypatch.setitem(sys.modules, f"motionexp.jobs.{module}", jobs)
    return jobs
