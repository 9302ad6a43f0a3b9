"""What Mochi has for itself: an empty prompt of zeros, all of them masked."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from motionexp.backbones.mochi import MochiBackbone
from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.errors import InputError
from motionexp.jobs.encoding_cache import EncodingCache
from tests.support.tiny_families import FAMILIES, noise

MOCHI = FAMILIES["mochi"]
SETTINGS = SamplerSettings(4, 6.0)


def loaded(folder: Path, *, zeros: bool | None = None) -> MochiBackbone:
    backbone = MochiBackbone.from_pretrained(folder, name="tiny")
    backbone.frames, backbone.height, backbone.width = MOCHI.video
    if zeros is not None:
        backbone.force_zeros_for_empty_prompt = zeros
    return backbone


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A model, and the same model whose pipeline forces zeros."""
    folders = {}
    for forced in (False, True):
        folders[forced] = folder = MOCHI.save(tmp_path_factory.mktemp("mochi") / str(forced))
        index = json.loads((folder / "model_index.json").read_text())
        index["force_zeros_for_empty_prompt"] = forced
        (folder / "model_index.json").write_text(json.dumps(index))
    return folders


def test_the_empty_prompt_is_the_pipelines(folders: dict[bool, Path]) -> None:
    backbone = loaded(folders[False], zeros=True)
    pipeline = MOCHI.load_pipeline(folders[True])
    with torch.no_grad():
        caption, mask, negative, negative_mask = pipeline.encode_prompt(MOCHI.caption, "")
    ours = backbone.embed(["", MOCHI.caption])
    assert_close(ours.embeds, torch.cat([negative, caption]))
    assert ours.mask is not None
    assert torch.equal(ours.mask, torch.cat([negative_mask, mask]).bool())
    assert not ours.mask[0].any()


def test_samples_equal_the_pipelines_with_and_without_zeros(folders: dict[bool, Path]) -> None:
    start, sampled = noise((1, *MOCHI.sampled[0])), list[Tensor]()
    for zeros in (False, True):
        backbone = loaded(folders[False], zeros=zeros)
        captions = backbone.embed([MOCHI.caption]), backbone.embed([""])
        sampled.append(sample_latents(backbone, *captions, start, SETTINGS))
        expected = MOCHI.stock(folders[zeros], start, SETTINGS, negative_prompt="")
        assert_close(sampled[-1], expected, rtol=1e-4, atol=1e-4)
    assert (sampled[0] - sampled[1]).abs().max() > 0.1


@torch.no_grad()
def test_a_caption_of_which_nothing_is_attended_is_trimmed_to_one_column(folders: dict[bool, Path]) -> None:
    backbone, x_t = loaded(folders[True]), noise((1, *MOCHI.sampled[0]))
    empty = backbone.embed([""])
    trimmed = empty.trimmed()
    assert trimmed.embeds.shape[1] == 1
    assert trimmed.mask is not None
    assert not trimmed.mask.any()
    # The network's output is that of the whole caption, in a batch of its own or with another one.
    beside = Conditioning.cat([empty, backbone.embed(["a b c"])])
    assert_close(
        backbone.predict(x_t, 500.0, empty), backbone.predict(x_t.repeat(2, 1, 1, 1, 1), 500.0, beside)[:1]
    )


def test_the_models_files_and_the_setting_must_not_disagree(folders: dict[bool, Path]) -> None:
    assert not loaded(folders[False]).force_zeros_for_empty_prompt
    assert loaded(folders[True]).force_zeros_for_empty_prompt
    with pytest.raises(
        InputError, match=r"force_zeros_for_empty_prompt=false: .*model_index\.json says true"
    ):
        loaded(folders[True], zeros=False)


def test_zeros_are_stored_apart_from_the_tokenizers_empty_caption(
    folders: dict[bool, Path], tmp_path: Path
) -> None:
    stored = []
    for zeros in (False, True):
        cache = EncodingCache(tmp_path, loaded(folders[False], zeros=zeros), "fp32")
        stored.append(cache.caption(""))
        cache.caption("a")
    assert_close(stored[1].embeds, loaded(folders[True]).embed([""]).embeds)
    assert not torch.equal(stored[0].embeds, stored[1].embeds)
    assert len([*tmp_path.iterdir()]) == 3  # a caption that is not empty is the same
