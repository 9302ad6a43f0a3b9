"""How other trainers describe a LoRA: peft's `LoraConfig`, in adapter_config.json or in a file's metadata."""

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from motionexp.errors import InputError

# Settings that change nothing about stored tensors, or that are read here.
WITHOUT_EFFECT = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",  # peft itself ignores it for the layers that networks have here
    "inference_mode",
    "lora_dropout",
    "lora_ga_config",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}
READ = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "peft_type", "init_lora_weights"}
TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
# The other ones change the base model's weights, of which the tensors are then no update.
INITIALIZATIONS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoRASettings:
    """Rank and scale of every layer of a LoRA.

    Attributes:
        source: the place of the settings, for errors.
        config: peft's form of them.
        checks_targets: whether a layer must be one of the config's target modules. peft ignores the tensors
            of any other layer; diffusers ignores the target modules.
    """

    source: str
    config: LoraConfig
    checks_targets: bool = False

    def scale(self, layer: str, rank: int) -> float:
        """Return the factor of a layer's update B A, as peft computes it.

        Raises:
            InputError: the settings give the layer another rank, or do not tune it.
        """
        config = self.config
        stated = config.rank_pattern.get(get_pattern_key(config.rank_pattern, layer), config.r)
        if stated != rank:
            raise InputError(f"{layer} has rank {rank}, but {self.source} says {stated}")
        if self.checks_targets and not self._is_target(layer):
            raise InputError(f"{layer} is none of the target modules in {self.source}")
        alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, layer), config.lora_alpha)
        return float(alpha / math.sqrt(rank)) if config.use_rslora else float(alpha / rank)

    def _is_target(self, layer: str) -> bool:
        try:
            return self.config.target_modules == "all-linear" or bool(
                check_target_module_exists(self.config, layer)
            )
        except (re.error, TypeError) as error:
            raise InputError(f"{self.source}: unusable target modules ({error})") from error


def read_settings(values: Mapping[str, Any], source: str, *, checks_targets: bool = False) -> LoRASettings:
    """Read a `LoraConfig` that was written as JSON.

    Raises:
        InputError: a value is not of its kind, or a setting stands for something else than a plain LoRA.
    """
    kind = values.get("peft_type") or "LORA"
    if kind != "LORA":
        raise InputError(f"{source}: peft_type={kind!r} is not supported: only LORA is")
    start = values.get("init_lora_weights", True)
    if not any(start is allowed or (start == allowed and type(start) is str) for allowed in INITIALIZATIONS):
        raise InputError(
            f"{source}: init_lora_weights={start!r} is not supported: the training changed the base model;"
            " convert the LoRA with peft's path_initial_model_for_weight_conversion"
        )
    for name in sorted(values.keys() - READ - WITHOUT_EFFECT - {*TARGETS}):
        # A setting that is off, of any version of peft, changes nothing.
        if values[name] and (name, values[name]) != ("bias", "none"):
            raise InputError(f"{source}: {name}={values[name]!r} is not supported: only a plain LoRA is")
    numbers = _numbers(values, source)
    targets = {name: values.get(name) for name in TARGETS if checks_targets}
    if checks_targets and not targets["target_modules"]:
        raise InputError(f"{source}: target_modules is missing: the names of the tuned layers")
    try:
        config = LoraConfig(**numbers, **targets)
    except (TypeError, ValueError) as error:
        raise InputError(f"{source}: {error}") from error
    return LoRASettings(source, config, checks_targets)


def read_object(text: str, source: str) -> dict[str, Any]:
    """Read a JSON object. Raises InputError for anything else."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{source} is not a JSON object")
    return values


def is_alpha(value: object) -> bool:
    """Whether a value can be a LoRA's alpha: a finite number other than 0."""
    # Not math.isfinite: JSON has whole numbers that are too large for a float.
    return isinstance(value, int | float) and value is not True and 0 < abs(value) <= sys.float_info.max


def _numbers(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Ranks and alphas with peft's defaults, checked."""
    read = {
        "r": values.get("r", 8),
        "lora_alpha": values.get("lora_alpha", 8),
        # null is an empty pattern for peft.
        "rank_pattern": values.get("rank_pattern") or {},
        "alpha_pattern": values.get("alpha_pattern") or {},
        "use_rslora": values.get("use_rslora") or False,
    }
    for name in ("rank_pattern", "alpha_pattern"):
        if not isinstance(read[name], dict):
            raise InputError(f"{source}: {name}={read[name]!r}: an object of layer names and numbers")
        for pattern in read[name]:
            try:
                re.compile(rf"(.*\.)?({pattern})$")
            except (re.error, OverflowError, RecursionError) as error:
                raise InputError(f"{source}: {name} has the invalid expression {pattern!r}") from error
    for rank in (read["r"], *read["rank_pattern"].values()):
        if type(rank) is not int or rank < 1:
            raise InputError(f"{source}: a rank is {rank!r}: a whole number from 1")
    for alpha in (read["lora_alpha"], *read["alpha_pattern"].values()):
        if not is_alpha(alpha):
            raise InputError(f"{source}: lora_alpha is {alpha!r}: a finite number other than 0")
    if not isinstance(read["use_rslora"], bool):
        raise InputError(f"{source}: use_rslora={read['use_rslora']!r}: true or false")
    return read


def is_number(text: str, number: int) -> bool:
    """Whether a text of metadata is a number."""
    try:
        return float(text) == number
    except ValueError:
        return False


def flat_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata, with the values inside JSON objects under KEY.NAME."""
    entries = dict(metadata)
    for key, text in metadata.items():
        if text.lstrip().startswith("{"):
            try:
                values = read_object(text, key)
            except InputError:
                continue  # a note in braces
            entries |= {f"{key}.{name}": str(value) for name, value in values.items()}
    return entries
