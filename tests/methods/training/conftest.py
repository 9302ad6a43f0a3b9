"""A tiny backbone and two encoded references."""

from copy import deepcopy

import pytest
import torch

from motionexp.backbones.latte import LatteBackbone
from motionexp.methods.training import Example
from tests.support.tiny_models import save_tiny_pipeline


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = save_tiny_pipeline(tmp_path_factory.mktemp("tiny_latte"))
    return LatteBackbone.from_pretrained(folder, name="tiny")


@pytest.fixture
def backbone(loaded):
    return deepcopy(loaded)


@pytest.fixture(scope="module")
def examples(loaded):
    """Two references of different captions."""
    shape = loaded.latent_shape(loaded.frames, loaded.height, loaded.width)
    latents = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    captions = ["a cat runs", "a dog is running to the left"]
    return [Example(latents[i : i + 1], loaded.embed([captions[i]])) for i in range(2)]
