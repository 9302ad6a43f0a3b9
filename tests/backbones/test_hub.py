"""Models by their hub id: out of the cache, and what is said where one cannot be had."""

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    IncompleteSnapshotError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from motionexp import hub
from motionexp.backbones import load_backbone
from motionexp.backbones.checkpoint import weights_hash
from motionexp.backbones.latte import LatteBackbone
from motionexp.errors import InputError
from motionexp.hub import fetch_command
from tests.support.tiny_models import save_tiny_pipeline

COMMIT = "0" * 40
WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def cache(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache with `someone/tiny` in it as the hub's library stores it; and HF_HUB_OFFLINE=1."""
    repository = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(whole, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "blobs").mkdir()
    for file in (repository / "snapshots").rglob("*.safetensors"):
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        file.symlink_to(blob)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repository


def said(path: str, revision: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_backbone(path, device="cpu", revision=revision)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_filled_cache_does_without_a_network(cache: Path, whole: Path, revision: str | None) -> None:
    backbone = load_backbone("someone/tiny", device="cpu", precision="fp32", revision=revision)
    assert (backbone.name, backbone.source, backbone.revision) == ("tiny", "someone/tiny", revision)
    assert backbone.weights_hash == weights_hash(whole, LatteBackbone.parts)
    assert LatteBackbone.caption_problems("someone/tiny", ["a cat"], revision=revision) == []


def test_what_is_not_in_the_cache_is_named_with_the_command(cache: Path) -> None:
    message = said("someone/tinny")
    for part in ("someone/tinny", str(cache.parent), "HF_HUB_OFFLINE=1"):
        assert part in message
    assert "`hf download someone/tinny --include " in message
    assert f"`hf download someone/tiny --revision {'1' * 40} --include " in said("someone/tiny", "1" * 40)
    # Under another owner it may be the same, moved.
    assert "someone/tiny" in said("anyone/tiny")


@pytest.mark.parametrize(
    "file", [f"vae/{WEIGHTS}.safetensors", "tokenizer/tokenizer_config.json", "model_index.json"]
)
def test_a_file_that_is_missing_in_the_cache_is_named_with_the_command(cache: Path, file: str) -> None:
    (cache / "snapshots" / COMMIT / file).unlink()
    message = said("someone/tiny", COMMIT)
    assert "someone/tiny" in message
    assert file.split("/")[0] in message
    assert f": hf download someone/tiny --revision {COMMIT} --include " in message


REFUSED = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (
            GatedRepoError("403", response=REFUSED),
            ("gated", "`hf auth login`", "`hf download someone/gone --revision v2 "),
        ),
        (
            RepositoryNotFoundError("404", response=REFUSED),
            ("private", "hf download someone/gone"),
        ),
        (RevisionNotFoundError("404", response=REFUSED), ("revision v2", "hf download someone/gone")),
        (
            IncompleteSnapshotError("3 file(s) are missing (vae/a.safetensors, b). Re-run", "/cache/x"),
            ("vae/a.safetensors", "/cache/x", "hf download someone/gone"),
        ),
        (OSError(28, "No space left on device"), ("No space left on device", "hf download someone/gone")),
    ],
)
def test_why_a_model_cannot_be_had(
    error: OSError, parts: tuple[str, ...], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    message = said("someone/gone", "v2")
    assert "someone/gone" in message
    assert [part for part in parts if part not in message] == []


def test_two_repositories_have_two_commands() -> None:
    adapter = "config.json diffusion_pytorch_model.safetensors"
    both = f"hf download a/b --revision x && hf download c/d --revision y {adapter}"
    assert fetch_command("a/b+c/d", "x+y") == both
    assert fetch_command("a/b+c/d", None) == f"hf download a/b && hf download c/d {adapter}"
    assert fetch_command("/here/b+c/d", "+y") == f"hf download c/d --revision y {adapter}"
