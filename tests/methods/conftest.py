from copy import deepcopy

import pytest
import torch

from motionexp.backbones.latte import LatteBackbone
from motionexp.methods.training import Example
from tests.support.tiny_models import save_tiny_pipeline


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny_latte"))


@pytest.fixture(scope="session")
def loaded(tiny_folder):
    return LatteBackbone.from_pretrained(tiny_folder, name="tiny")


@pytest.fixture
def backbone(loaded):
    return deepcopy(loaded)


@pytest.fixture
def bf16_backbone(tiny_folder):
    return LatteBackbone.from_pretrained(tiny_folder, name="tiny", dtype=torch.bfloat16)


@pytest.fixture
def inputs(loaded):
    """Latents of noise and an embedded caption."""
    shape = loaded.latent_shape(loaded.frames, loaded.height, loaded.width)
    latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    return Example(latents, loaded.embed(["a cat runs"]))
