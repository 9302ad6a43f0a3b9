"""The ids of a job's results, by which later runs find them. Imports no torch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from motionexp.config.adapter_files import adapter_files, expert_of, peft_config_file
from motionexp.config.job_settings import idle_settings
from motionexp.config.schema import (
    INVERSION_PROMPTS,
    RECIPE_SETTINGS,
    JobConfig,
    ModelConfig,
    is_guidance,
    method_name,
    tiles,
)
from motionexp.config.settings import Stage, settings_in
from motionexp.config.targets import PACKAGE

# Raise a version when equal settings give other results: finished cells of older versions then run again.
FIT_VERSION = 2
SAMPLE_VERSION = 2
PROBE_VERSION = 2
GUIDANCE_VERSIONS = {"ditflow": 2}
"""Of guidance methods by their names; of those that are not here 1."""
UNTRAINED_VERSION = 1
"""Of cells that train nothing: their ids do not follow the training's version."""
# Settings that change nothing of what these probes measure; the inversion's rows name their prompt.
NOT_IN_PROBES = {
    "inversion": ("guidance_scale", "inversion_prompt", "at_once"),
    "linear_probe": (
        *("probe_steps", "guidance_scale", "negative_prompt", "force_zeros_for_empty_prompt"),
        *("inversion_guidance_scale", "inversion_prompt", "at_once"),
    ),
}
WINDOW = ("tau", "tau_high", "soft_window")
# A method's name in ids, or a plugin's import path. For the two methods of the first release it is the import
# path that was hashed then, so that their finished cells are found again.
HASHED_NAMES = {"lora": "motionexp.methods.lora.LoRA", "full_rank": "motionexp.methods.direct.Direct"}


def adapter_id(
    cfg: JobConfig,
    *,
    weights_hash: str,
    precision: str,
    reference_hash: str,
    together: Sequence[str] = (),
) -> str:
    """Id of what a cell's training gives, and the name of its folder: 12 hex digits.

    `weights_hash` is the backbone's, `reference_hash` a Reference's `content_hash`, `precision` the one that
    `auto` came out as. `together` has the hashes of all references that are trained in one batch, this one
    included: they change the last bits. The id contains them if there are several.

    At tau = 1000 nothing is trained, so that no training setting is part of the id. A guidance method trains
    nothing either: the id contains its own settings and its window.
    """
    parts = _cell(cfg, weights_hash, precision) | {"reference": reference_hash}
    if cfg.adapter is not None:
        parts |= _adapter_content(cfg)
    elif cfg.tau != 1000 and cfg.probe is None and is_guidance(cfg.method, cfg.plugins):
        window = {name: value for name, value in _settings(cfg, "training").items() if name in WINDOW}
        name = method_name(cfg.method) if is_of_package(cfg.method) else cfg.method["_target_"]
        return _digest(
            *("guidance", guidance_version(cfg.method)),
            parts | window | {"method": {**cfg.method, "_target_": name}},
        )
    elif cfg.tau != 1000:
        parts |= _settings(cfg, "training") | {"batch_size": cfg.trainer.draws(cfg.batch_size)}
        parts |= {"together": [*together]} if len(together) > 1 else {}
        name = method_name(cfg.method) if is_of_package(cfg.method) else cfg.method["_target_"]
        settings = {**cfg.method, "_target_": HASHED_NAMES.get(name, name)}
        # Left out at its default: adapters from before the setting existed keep their ids.
        parts["method"] = {
            key: value for key, value in settings.items() if (key, value) != ("attention", "motion")
        }
    trains = cfg.adapter is None and cfg.tau != 1000  # a probe's settings may be asked for their adapter
    return _digest("adapter", FIT_VERSION if trains else UNTRAINED_VERSION, parts)


def _adapter_content(cfg: JobConfig) -> dict[str, Any]:
    """What an id contains of the files of `adapter=`."""
    files = adapter_files(cfg.adapter or "")
    parts: dict[str, Any] = {"adapter": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]}
    configs = [config for file in files if (config := peft_config_file(file))]
    if configs:
        parts["adapter_config"] = [hashlib.sha256(config.read_bytes()).hexdigest() for config in configs]
    if len(files) == 1:  # as ids were before there were files of two experts
        parts = {name: hashes[0] for name, hashes in parts.items()}
    # Where there are two experts, the file's name may say for which one it is.
    if "ExpertsBackbone." in cfg.model._target_ and any(map(expert_of, files)):
        parts["adapter_experts"] = [expert_of(file) for file in files]
    return parts


def sample_id(
    cfg: JobConfig,
    adapter: str,
    *,
    caption: str,
    index: int,
    batch: Sequence[tuple[str | int, ...]] = (),
    image: str = "",
) -> str:
    """Id of one video: what `adapter` (an `adapter_id`) makes of a caption with the index-th initial noise.

    The ids of the base model (tau = 1000) leave out the settings of the stage "applying". `batch` holds the
    caption and the index of every video that is denoised together with this one, itself included: they
    change the last bits of a sample. The id contains them if there are several. `image` is the hash of the
    image that the video begins with, which members of the batch have too; empty: none.
    """
    together: dict[str, Any] = {"batch": [*batch]} if len(batch) > 1 else {}
    together |= {"image": image} if image else {}
    parts = _settings(cfg, "sampling") | (_settings(cfg, "applying") if cfg.tau != 1000 else {})
    about = {"adapter": adapter, "caption": caption, "index": index} | together
    return _digest("sample", SAMPLE_VERSION, parts | about)


def sampling_id(cfg: JobConfig) -> str:
    """Id of the settings of the sampling: with a cell's name it identifies a run of the loggers."""
    parts = _settings(cfg, "sampling") | (_settings(cfg, "applying") if cfg.tau != 1000 else {})
    return _digest("run", SAMPLE_VERSION, parts)[:8]


def guidance_version(method: Mapping[str, Any]) -> int:
    """The version of what a guidance method makes of a sampling."""
    return GUIDANCE_VERSIONS.get(method_name(method), 1) if is_of_package(method) else 1


def is_of_package(method: Mapping[str, Any]) -> bool:
    """Whether the class of a method is one of this package."""
    return str(method["_target_"]).startswith(f"{PACKAGE}.")


def _settings(cfg: JobConfig, stage: Stage) -> dict[str, Any]:
    """The settings of a stage; of those that were added later only what is not the default.

    Results from before a setting was added keep their ids.
    """
    idle = idle_settings(cfg.stg_scale)
    return {
        name: getattr(cfg, name)
        for name, about in settings_in(JobConfig).items()
        if stage in about.stages
        and name not in idle
        and not (about.added_later and getattr(cfg, name) == _before(name))
    }


def _before(name: str) -> Any:
    """The value of a setting before there was such a setting: its default, or that of the model's schema."""
    schema = ModelConfig if name in RECIPE_SETTINGS else JobConfig
    return schema.__dataclass_fields__[name].default


def _cell(cfg: JobConfig, weights_hash: str, precision: str) -> dict[str, Any]:
    """What the ids of adapters and of probes share."""
    parts = _settings(cfg, "cell") | ({"tiles": True} if tiles(cfg.mode, cfg.model) else {})
    frames = [cfg.frames, cfg.model.height, cfg.model.width]
    return parts | {"weights": weights_hash, "precision": precision, "frames": frames}


def probe_id(
    cfg: JobConfig,
    *,
    caption: str,
    weights_hash: str,
    precision: str,
    reference_hash: str,
    at_once: int = 1,
    inversion_steps: int | None = None,
) -> str:
    """Id of a unit of work of a probe, and the name of its folder: 12 hex digits.

    The trees probe a reference with the edit `caption`, the inversion with its own caption. Of the linear
    probe `reference_hash` names the drawn videos. `at_once` is the number of videos in a batch of a tree,
    which changes the last bits of the probe's videos. `inversion_steps`: None as `probe_steps`.
    """
    parts = _settings(cfg, "probe") | _cell(cfg, weights_hash, precision)
    parts |= {"caption": caption, "reference": reference_hash}
    if at_once > 1:
        parts["at_once"] = at_once
    parts.pop("inversion_prompt", None)  # it may be the default in words
    if cfg.inversion_prompt is not None and (cfg.inversion_prompt,) != INVERSION_PROMPTS[str(cfg.probe)]:
        parts["inversion_prompt"] = cfg.inversion_prompt
    for name in NOT_IN_PROBES.get(str(cfg.probe), ()):
        parts.pop(name, None)
    if inversion_steps not in (None, cfg.probe_steps):
        parts["inversion_steps"] = inversion_steps
    return _digest("probe", PROBE_VERSION, parts)


def pair_id(probe: str, pair: str) -> str:
    """Id of the video that a probe (a `probe_id`) makes for one pair of timesteps."""
    return _digest("sample", PROBE_VERSION, {"probe": probe, "pair": pair})


def energies_id(size: Sequence[int], version: int, *, weights_hash: str, precision: str) -> str:
    """Id of the energies of the bundled world's factors in a model's latents, as `version` measures them.

    `size` is that of the videos: frames, height, width.
    """
    parts = {"weights": weights_hash, "precision": precision, "frames": [*size]}
    return _digest("energies", version, parts)


def score_id(sample: str, *, metric: str, version: int) -> str:
    """Id of one metric's value on one sample (a `sample_id`)."""
    return _digest("score", version, {"sample": sample, "metric": metric})


def _digest(stage: str, version: int, parts: Mapping[str, Any]) -> str:
    text = json.dumps([stage, version, parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
