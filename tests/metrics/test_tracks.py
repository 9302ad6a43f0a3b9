"""Lucas-Kanade and CoTracker."""

from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from motionexp.errors import InputError
from motionexp.metrics.cotracker import CoTracker
from motionexp.metrics.tracks import LucasKanadeTracker
from tests.metrics.conftest import moving_texture


@pytest.mark.parametrize("velocity", [(1, 0), (-2, 1)])
def test_lucas_kanade_follows_a_moving_texture_until_it_leaves(velocity):
    tracks = LucasKanadeTracker()(moving_texture(0, velocity))
    whole = tracks.visible.all(0)
    assert 0.2 < whole.mean() < 1
    travelled = (tracks.position[-1] - tracks.position[0])[whole]
    np.testing.assert_allclose(np.median(travelled, axis=0), 7 * np.array(velocity), atol=0.1)
    assert not (np.diff(tracks.visible.astype(int), axis=0) > 0).any()  # what is lost stays lost


class Predictor(torch.nn.Module):
    """Stands for CoTracker's: every point goes to the right by what its only weight says."""

    def __init__(self, checkpoint, window_len, v2):
        super().__init__()
        assert (checkpoint, window_len, v2) == (None, 60, False)
        self.model = torch.nn.Linear(1, 1, bias=False)

    def forward(self, video, grid_size):
        assert video.dtype == torch.float32
        assert video.max() > 1
        start = torch.rand(1, 1, grid_size**2, 2)
        time = torch.arange(video.shape[1]).view(1, -1, 1, 1)
        position = start + time * self.model.weight * torch.tensor([1.0, 0.0])
        return position, torch.ones(position.shape[:3], dtype=torch.bool)


def test_cotracker_is_used_where_it_is_installed_and_named_where_it_is_not(monkeypatch, tmp_path):
    weights = tmp_path / "cotracker3.safetensors"
    save_file({"weight": torch.full((1, 1), 3.0)}, weights)
    with pytest.raises(InputError, match="facebookresearch/co-tracker"):
        CoTracker.load(weights)
    module = ModuleType("cotracker.predictor")
    module.CoTrackerPredictor = Predictor
    monkeypatch.setitem(__import__("sys").modules, "cotracker.predictor", module)
    monkeypatch.setitem(__import__("sys").modules, "cotracker", ModuleType("cotracker"))
    tracker = CoTracker.load(weights)
    tracks = tracker(moving_texture(0, (3, 0)))
    assert tracks.position.shape == (8, 55 * 55, 2)
    np.testing.assert_allclose(tracks.steps, np.broadcast_to([3.0, 0.0], (3025, 7, 2)), atol=1e-5)
    assert tracker.identity.startswith("cotracker3 55 ")
    weights.write_bytes(b"not weights")
    with pytest.raises(InputError, match="tracker_weights"):
        CoTracker.load(weights)
