"""Settings of a job on a tiny model and the suite of squares."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import motionexp.config.compose  # noqa: F401  # registers the settings' resolvers
from motionexp.config.schema import JobConfig
from tests.support.squares import METRICS

SCHEMA = OmegaConf.structured(JobConfig)
"""All settings with their types and defaults, which take longer to read than a job to be made."""


def job_settings(
    target: str, weights: Path, video: tuple[int, int, int], *, output: str, **changes: Any
) -> JobConfig:
    """Checked settings: two training steps, two sampling steps, one metric.

    `target` is the backbone's class, `video` its frames, height and width.
    """
    frames, height, width = video
    model = {
        "_target_": f"{target}.from_pretrained",
        "name": "tiny",
        "path": str(weights),
        "frames": frames,
        "height": height,
        "width": width,
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
        "data": {"_target_": "tests.support.squares.Squares"},
        "tau": 500.0,
        "metrics": METRICS,
        "device": "cpu",
        "precision": "fp32",
        "base_model": False,  # each job is then one cell
        "exact_frames": "npz",  # which numpy reads
        "output": output,
    }
    cfg = OmegaConf.to_object(OmegaConf.merge(SCHEMA, plain, changes))
    assert isinstance(cfg, JobConfig)
    return cfg
