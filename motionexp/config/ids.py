"""The ids of what comes out of a job, by which it is found again. Imports no torch."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from motionexp.config.schema import (
    INVERSION_PROMPTS,
    JobConfig,
    adapter_file,
    inversion_prompt,
    method_name,
    tiles,
)

# Raised when the same settings would give other results: a finished cell of an older version is run again.
FIT_VERSION = 1
SAMPLE_VERSION = 1
PROBE_VERSION = 1
# What stands for a method in ids: its own name, but of the two methods of the first release the import paths
# that were hashed then, so that their finished cells are found again.
HASHED_NAMES = {"lora": "motionexp.methods.lora.LoRA", "full_rank": "motionexp.methods.direct.Direct"}


def adapter_id(cfg: JobConfig, *, weights_hash: str, precision: str, reference_hash: str) -> str:
    """Id of what a cell's training gives, and the name of its folder: 12 hex digits.

    `weights_hash` is the backbone's, `reference_hash` a Reference's `content_hash`, `precision` the one that
    `auto` came out as. At tau = 1000 nothing is trained, so that no training setting is part of the id.
    """
    parts: dict[str, Any] = {
        "weights": weights_hash,
        "precision": precision,
        "reference": reference_hash,
        "frames": [cfg.frames, cfg.model.height, cfg.model.width],
        **_memory(cfg),
    }
    if cfg.adapter is not None:
        parts["adapter"] = hashlib.sha256(adapter_file(cfg.adapter).read_bytes()).hexdigest()
    elif cfg.tau != 1000:
        names = ("tau", "train_steps", "learning_rate", "weight_decay", "batch_size", "seed")
        parts |= {name: getattr(cfg, name) for name in names}
        parts |= _unless_default(cfg, "tau_high", "soft_window")
        settings = {**cfg.method, "_target_": HASHED_NAMES.get(method_name(cfg), method_name(cfg))}
        parts["method"] = {
            key: value for key, value in settings.items() if (key, value) != ("attention", "motion")
        }
    return _digest("adapter", FIT_VERSION, parts)


def sample_id(cfg: JobConfig, adapter: str, *, caption: str, index: int) -> str:
    """Id of one video: what `adapter` (an `adapter_id`) makes of a caption with the index-th initial noise.

    The strength and reach of an adapter are no part of the base model's ids (tau = 1000).
    """
    names = ["sampler", "steps", "eta", "guidance_scale", "negative_prompt", "seed"]
    if cfg.tau != 1000:
        names += ["tau", "adapter_scale", "adapter_in_unconditional"]
    parts = {name: getattr(cfg, name) for name in names}
    if cfg.tau != 1000:
        parts |= _unless_default(cfg, "tau_high", "sampling_tau", "sampling_tau_high")
    return _digest("sample", SAMPLE_VERSION, parts | {"adapter": adapter, "caption": caption, "index": index})


def _unless_default(cfg: JobConfig, *names: str) -> dict[str, Any]:
    """Settings that came later: cells that were finished before them keep their ids."""
    defaults = JobConfig.__dataclass_fields__
    return {name: getattr(cfg, name) for name in names if getattr(cfg, name) != defaults[name].default}


def probe_id(cfg: JobConfig, *, caption: str, weights_hash: str, precision: str, reference_hash: str) -> str:
    """Id of a probe of one reference with the edit `caption`, and the name of its folder: 12 hex digits."""
    names = ("probe", "probe_steps", "inversion_guidance_scale", "guidance_scale", "negative_prompt")
    parts = {name: getattr(cfg, name) for name in names} | {
        "caption": caption,
        "weights": weights_hash,
        "precision": precision,
        "reference": reference_hash,
        "frames": [cfg.frames, cfg.model.height, cfg.model.width],
        **_memory(cfg),
    }
    if (prompt := inversion_prompt(cfg)) != INVERSION_PROMPTS[str(cfg.probe)]:
        parts["inversion_prompt"] = prompt
    return _digest("probe", PROBE_VERSION, parts)


def pair_id(probe: str, pair: str) -> str:
    """Id of the video that a probe (a `probe_id`) makes for one pair of timesteps."""
    return _digest("sample", PROBE_VERSION, {"probe": probe, "pair": pair})


def energies_id(cfg: JobConfig, version: int, *, weights_hash: str, precision: str) -> str:
    """Id of the energies of the bundled world's factors in a model's latents, as `version` measures them."""
    parts = {
        "weights": weights_hash,
        "precision": precision,
        "frames": [cfg.frames, cfg.model.height, cfg.model.width],
    }
    return _digest("energies", version, parts)


def score_id(sample: str, *, metric: str, version: int) -> str:
    """Id of one metric's value on one sample (a `sample_id`)."""
    return _digest("score", version, {"sample": sample, "metric": metric})


def _memory(cfg: JobConfig) -> dict[str, Any]:
    """What ways to need less memory add to an id: nothing, unless they change results."""
    return _unless_default(cfg, "text_precision") | ({"tiles": True} if tiles(cfg) else {})


def _digest(stage: str, version: int, parts: Mapping[str, Any]) -> str:
    text = json.dumps([stage, version, parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
