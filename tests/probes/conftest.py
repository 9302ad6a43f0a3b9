import pytest
import torch

from motionexp.backbones.latte import LatteBackbone
from motionexp.probes.timesteps import EDGES
from tests.support.tiny_models import save_tiny_pipeline


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    folder = save_tiny_pipeline(tmp_path_factory.mktemp("probed"))
    return LatteBackbone.from_pretrained(folder, name="tiny")


@pytest.fixture(scope="session")
def starts(backbone):
    """Latents at every edge where a trajectory may start, each of its own noise."""
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    generator = torch.Generator().manual_seed(1)
    return {edge: torch.randn(1, *shape, generator=generator) for edge in EDGES[1:]}
