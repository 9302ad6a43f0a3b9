"""A tiny backbone and two encoded references."""

from copy import deepcopy

import pytest
import torch

from motionexp.backbones.latte import LatteBackbone
from motionexp.methods.step import DrawKey, Step
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


@pytest.fixture(scope="session")
def examples(loaded):
    """Two references with different captions."""
    shape = loaded.latent_shape(loaded.frames, loaded.height, loaded.width)
    latents = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    captions = ["a cat runs", "a dog is running to the left"]
    return [Example(latents[i : i + 1], loaded.embed([captions[i]]), f"video {i}") for i in range(2)]


@pytest.fixture
def predict(backbone, examples):
    """The network's output for the first reference at a timestep, bit for bit."""

    @torch.no_grad()
    def output(t=800):
        return backbone.predict(examples[0].latents, t, examples[0].conditioning)

    return output


@pytest.fixture
def step(backbone, examples):
    """The fourth step of a training on both references."""
    latents = torch.cat([example.latents for example in examples])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    keys = [DrawKey(5, "video 0", 3, 0), DrawKey(5, "video 1", 3, 1)]
    captions = backbone.embed(["a cat runs", "a dog is running to the left"]).trimmed()
    return Step.noised(backbone.schedule, latents, noise, torch.tensor([700, 900]), captions, keys)
