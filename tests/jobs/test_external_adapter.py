"""A job with a LoRA that another trainer made."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from motionexp.config.checks import check
from motionexp.errors import InputError
from motionexp.jobs.run import run
from tests.support.kept_results import cells

LAYER = "lora_transformer_temporal_transformer_blocks_0_attn1_to_v"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """In kohya's keys, for the tiny Latte: 16 channels."""
    g = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 16, generator=g), torch.randn(16, 2, generator=g)
    tensors = {f"{LAYER}.lora_down.weight": down, f"{LAYER}.lora_up.weight": up}
    save_file(tensors, tmp_path / "theirs.safetensors")
    return tmp_path / "theirs.safetensors"


def test_it_samples_within_the_window_that_tau_gives(make, lora):
    cfg = make(adapter=str(lora), tau=600.0)
    assert check(replace(cfg, metrics=None)) == []
    rows = run(cfg)
    assert {(row.method, row.tau, row.train_steps) for row in rows} == {("lora", 600.0, 0)}
    (cell,) = cells(cfg)
    assert not (cell / "adapter").exists()


def test_without_tau_it_is_refused_before_weights_are_loaded(make, lora):
    cfg = make(adapter=str(lora), tau=None)
    assert check(replace(cfg, metrics=None)) == []
    nowhere = replace(cfg, model=replace(cfg.model, path=str(lora.parent / "nowhere")))
    with pytest.raises(InputError, match=r"theirs.safetensors: .*tau="):
        run(nowhere)
