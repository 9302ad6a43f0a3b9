"""What can be wrong with the settings of sampling and with a model's recipes. Imports no torch."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from motionexp.config import schema
from motionexp.config.schema import JobConfig, ModelConfig
from motionexp.config.settings import LARGEST
from motionexp.config.targets import class_value
from motionexp.errors import InputError, one_of


def is_guided(guidance_scale: Any) -> bool:
    """Whether some step has an unconditional branch, by a valid `guidance_scale=`."""
    if isinstance(guidance_scale, list):
        return any(scale > 1 for _, scale in guidance_scale)
    return bool(guidance_scale > 1)


def evaluations_of_step(guidance_scale: Any, stg_scale: float = 0.0) -> int:
    """Evaluations of the network in a sampling step of one video, by valid settings."""
    return 1 + is_guided(guidance_scale) + (stg_scale > 0)


def beside_pipelines(settings: Mapping[str, Any]) -> list[str]:
    """What of a job's sampling other tools have to be given by hand, as words; none at the defaults."""
    names = ["stg_scale", "stg_blocks"] if settings.get("stg_scale") else []
    names += ["guidance_rescale", "force_zeros_for_empty_prompt", "inverted_noise"]
    return [f"{name}={_plain(settings[name])}" for name in names if settings.get(name)]


BEFORE: Mapping[str, Any] = {
    **{"shift": None, "timestep_spacing": None, "sampler": "ddim", "eta": 0.0, "negative_prompt": ""},
    **{"dynamic_guidance": False, "force_zeros_for_empty_prompt": False, "guidance_rescale": 0.0},
    **{"stg_scale": 0.0, "stg_blocks": None, "inverted_noise": 0.0},
}
"""Settings of sampling as they were in rows from before there were such settings."""


def sampling_words(
    settings: Mapping[str, Any], names: Sequence[str], defaults: Mapping[str, Any]
) -> list[str]:
    """A job's sampling as words of a command: the settings of `names`, and all that are not at their default.

    Of `names`, a value that is null is left out where it is the default.
    """
    return [
        f"{name}={_word(value)}"
        for name, value in settings.items()
        if name in defaults and (value != defaults[name] or (name in names and value is not None))
    ]


def _word(value: Any) -> str:
    if value is None:
        return "null"
    return value if isinstance(value, str) else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_plain, value))}]"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def sampling_problems(cfg: JobConfig) -> Iterator[str]:
    """What is wrong with the settings of sampling, one sentence a problem; `check` has their bounds."""
    yield from _recipe_problems(cfg)
    yield from _scale_problems("guidance_scale", cfg.guidance_scale)
    if cfg.model.guidance_scale != cfg.guidance_scale:
        yield from _scale_problems("model.guidance_scale", cfg.model.guidance_scale)
    if isinstance(cfg.guidance_scale, list) and cfg.dynamic_guidance:
        yield f"dynamic_guidance=true: varies one number; guidance_scale={cfg.guidance_scale} is several"
    yield from _solver_problems(cfg)
    yield from _schedule_problems(cfg)
    yield from _stg_problems(cfg)
    yield from _empty_prompt_problems(cfg)


def _recipe_problems(cfg: JobConfig) -> Iterator[str]:
    model = cfg.model
    for name, value in (("recipe", cfg.recipe), ("model.recipe", model.recipe)):
        if value is not None and value not in model.recipes:
            names = one_of(value, model.recipes) if model.recipes else "it has no recipes; leave it out"
            yield f"{name}={value}: no recipe of model={model.name}; {names}"
    if cfg.recipe is None and model.recipes:
        yield f"recipe=null: model={model.name} has recipes; {one_of('', model.recipes)}"
    for name, recipe in model.recipes.items():
        if unknown := [key for key in recipe if key not in schema.RECIPE_SETTINGS]:
            choices = one_of(str(unknown[0]), schema.RECIPE_SETTINGS)
            yield f"model.recipes.{name}.{unknown[0]}: no setting of a recipe; {choices}"


def _scale_problems(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, list):
        pairs = all(isinstance(pair, list) and len(pair) == 2 for pair in value)
        if not (value and pairs and all(_is_number(number) for pair in value for number in pair)):
            yield f"{name}={value}: a number from 1, or pairs [timestep,scale] such as [[0,3],[875,4]]"
            return
        times, scales = zip(*value, strict=True)
        if times[0] != 0 or times[-1] > 1000 or any(after <= before for before, after in pairwise(times)):
            yield f"{name}={value}: timesteps ascend from 0, at which the first scale begins, to 1000 at most"
        elif 0 < times[-1] <= 1:
            yield f"{name}={value}: timesteps from 0 to 1000 are meant, and not shares"
        if min(scales) < 1:
            yield f"{name}={value}: scales are from 1, which is no guidance"
    elif not _is_any_number(value) or value < 1:  # too large a number is named with those of other settings
        yield f"{name}={value}: a number from 1, which is no guidance, or pairs [[timestep,scale],...]"


def _is_number(value: Any) -> bool:
    return _is_any_number(value) and bool(abs(value) <= LARGEST[float])


def _is_any_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _solver_problems(cfg: JobConfig) -> Iterator[str]:
    """Steps of second order keep what the methods below would change between them."""
    plain = ("ddim", "euler") if _is_flow(cfg.model, cfg.plugins) else ("ddim",)
    if cfg.sampler in plain:
        if cfg.eta > 0 and cfg.sampler != "ddim":
            yield f"eta={cfg.eta:g}: {cfg.sampler} adds no noise; take sampler=ddim, or leave out eta="
        return
    shown = f"sampler={cfg.sampler}"
    if cfg.eta > 0:
        yield f"{shown}: adds no noise; leave out eta={cfg.eta:g}, or take sampler=ddim"
    if schema.guides(cfg):
        name = schema.method_name(cfg.method)
        yield f"{shown}: method={name} changes latents between DDIM's steps; take sampler=ddim"
    if cfg.inverted_noise and cfg.tau != 1000:
        yield f"{shown}: inverted_noise= inverts DDIM's steps; take sampler=ddim"


def _schedule_problems(cfg: JobConfig) -> Iterator[str]:
    """Whether shift= and timestep_spacing= suit the model's kind of schedule."""
    flow = _is_flow(cfg.model, cfg.plugins)
    if flow is None:
        return
    spacings = schema.FLOW_SPACINGS if flow else schema.DISCRETE_SPACINGS
    if cfg.shift is not None and not flow:
        yield f"shift={cfg.shift:g}: of flow matching alone, which {cfg.model.name} is not; leave it out"
    if cfg.timestep_spacing not in (None, *spacings):
        choices = one_of(str(cfg.timestep_spacing), spacings)
        yield f"timestep_spacing={cfg.timestep_spacing}: {cfg.model.name} has another schedule; {choices}"
    if flow and cfg.dynamic_guidance:
        yield f"dynamic_guidance=true: it counts discrete timesteps, which {cfg.model.name} has not"


def _stg_problems(cfg: JobConfig) -> Iterator[str]:
    """Which blocks there are, the network says; see `motionexp.jobs.checks`."""
    for name, blocks in (("stg_blocks", cfg.stg_blocks), ("model.stg_blocks", cfg.model.stg_blocks)):
        if blocks is not None and (not blocks or min(blocks) < 0 or len({*blocks}) < len(blocks)):
            yield f"{name}={blocks}: numbers of blocks from 0, each once, as in [19]; null: none"
    if cfg.stg_scale > 0 and cfg.stg_blocks is None:
        yield (
            f"stg_scale={cfg.stg_scale:g}: needs stg_blocks=[NUMBER,...], the blocks whose self-attention is"
            " perturbed"
        )


def _empty_prompt_problems(cfg: JobConfig) -> Iterator[str]:
    try:
        kind = cfg.model._target_.rpartition(".")[0]
        has_form = class_value(kind, "zeroes_empty_prompt", cfg.plugins)
    except InputError:
        return  # there is no such class, or its package may not run: a problem of its own
    if cfg.force_zeros_for_empty_prompt and not has_form:
        yield f"force_zeros_for_empty_prompt=true: Mochi alone has it, and not {cfg.model.name}; leave it out"


def _is_flow(model: ModelConfig, plugins: list[str]) -> bool | None:
    """Whether a model's class is of flow matching; None: unknown."""
    try:
        flow = class_value(model._target_.rpartition(".")[0], "flow_matching", plugins)
    except InputError:
        return None  # there is no such class, or its package may not run: a problem of its own
    return None if flow is None else bool(flow)
