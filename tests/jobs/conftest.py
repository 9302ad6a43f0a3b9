"""Settings of a job on a tiny model and the suite of squares."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from squares import METRICS, Brightness, Colourfulness
from tiny_models import FRAMES, SIZE, save_tiny_pipeline

import motionexp.compose  # noqa: F401  # registers the settings' resolvers
from motionexp import evaluation
from motionexp.config import JobConfig


@pytest.fixture(autouse=True)
def metrics(monkeypatch):
    monkeypatch.setitem(evaluation.METRICS, "brightness", Brightness)
    monkeypatch.setitem(evaluation.METRICS, "colourfulness", Colourfulness)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def make(weights, tmp_path):
    """Makes checked settings: two training steps, two sampling steps, one metric."""

    def settings(**changes) -> JobConfig:
        model = {
            "_target_": "motionexp.backbones.latte.LatteBackbone.from_pretrained",
            "name": "tiny",
            "path": str(weights),
            "frames": FRAMES,
            "height": SIZE,
            "width": SIZE,
            "fps": 8.0,
            "max_caption_tokens": 120,
            "default_tau": 500.0,
            "train_steps": 2,
            "learning_rate": 1e-3,
            "full_rank_learning_rate": 1e-4,
            "batch_size": 1,
            "steps": 2,
            "guidance_scale": 2.0,
        }
        lora = {"_target_": "motionexp.methods.lora.LoRA", "rank": 2, "alpha": 2.0, "projections": ["v", "o"]}
        plain = {
            "model": model,
            "method": lora,
            "data": {"_target_": "squares.Squares"},
            "tau": 500.0,
            "metrics": METRICS,
            "device": "cpu",
            "precision": "fp32",
            "output": str(tmp_path / "out"),
        }
        merged = OmegaConf.merge(OmegaConf.structured(JobConfig), plain, changes)
        cfg = OmegaConf.to_object(merged)
        assert isinstance(cfg, JobConfig)
        return cfg

    return settings
