"""External LoRAs: files of other trainers, with the keys of diffusers, peft or kohya's scripts."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from motionexp.config.adapter_files import PEFT_CONFIG_NAME, PEFT_FILE_NAME
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.lora import DIFFUSERS_KEY, LoRA
from motionexp.methods.lora_config import LoRASettings, is_alpha, read_object, read_settings

# The end of a key names its tensor: a layer computes x + scale * up(down(x)), A is down and B is up.
ENDS = (
    (re.compile(r"[._]lora(_A(\.\w+)?|[._]down)\.weight$"), "lora_A.weight"),
    (re.compile(r"[._]lora(_B(\.\w+)?|[._]up)\.weight$"), "lora_B.weight"),
    (re.compile(r"\.alpha$"), "alpha"),
)
WRAPPER = "base_model.model."  # peft's
# The start of a layer's name: the pipeline's component, or kohya's prefix, which has _ for each dot.
PREFIX = re.compile(r"^(unet\.|transformer\.|(model\.)?diffusion_model\.|lora_(unet|transformer)_)+")
TEXT_ENCODER = re.compile(
    r"^(base_model\.model\.)?(text_encoder|text_model|te\d?\.|lora_te|clip_[lgh]\.|t5xxl\.|conditioner\.)"
)
COMPONENTS = ("transformer", "transformer_2", "unet")
PREFIX_OF_COMPONENT = re.compile(rf"({'|'.join(COMPONENTS)})\.")
# alpha as trainers write it into the metadata, where neither peft nor diffusers reads it.
PLAIN_ALPHA = re.compile(r"(^|\.)(lora_alpha|network_alpha|ss_network_alpha|alpha)$")
PLAIN_RSLORA = re.compile(r"(^|\.)use_rslora$")
LAYERS = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class Layer:
    """The tensors of one layer: A (rank, in, ...), B (out, rank, ...), and alpha if it is a tensor too."""

    down: Tensor
    up: Tensor
    alpha: float | None

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True)
class ExternalFile:
    """What an external LoRA says without a network: layers by the names in the file, and their settings.

    `settings` has them by the component of diffusers' pipeline, and under "" for a network that was saved
    alone. `is_peft`: they are of peft's adapter_config.json, which describes whatever lies beside it.
    """

    layers: Mapping[str, Layer]
    settings: Mapping[str, LoRASettings]
    is_peft: bool


def read_external(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], peft_config: Mapping[str, Any] | None
) -> ExternalFile:
    """Read the file of another trainer, as far as it can be read without a network.

    Args:
        tensors, metadata: of the file.
        peft_config: the content of peft's adapter_config.json, if it lies beside the file.

    Raises:
        InputError: a tensor is no part of a LoRA or belongs to a text encoder; two places state alpha; or the
            settings are damaged or stand for something else than a plain LoRA.
    """
    layers = _layers(tensors)
    settings = _diffusers_settings(metadata)
    if peft_config is not None:
        if settings:
            raise InputError(f"{PEFT_CONFIG_NAME} and the file's {DIFFUSERS_KEY} both describe it: keep one")
        settings = {"": read_settings(peft_config, PEFT_CONFIG_NAME, checks_targets=True)}
    with_alpha = [name for name, layer in layers.items() if layer.alpha is not None]
    without = [name for name, layer in layers.items() if layer.alpha is None]
    if with_alpha and without:
        raise InputError(f"{with_alpha[0]} has an alpha, and {without[0]} has none")
    if with_alpha and settings:
        source = next(iter(settings.values())).source
        raise InputError(f"the tensors ({with_alpha[0]}.alpha) and {source} both state alpha: keep one")
    if without and not settings:
        _check_plain_metadata(layers, metadata)
    return ExternalFile(layers, settings, peft_config is not None)


def attach(file: ExternalFile, backbone: Backbone, window: Window) -> LoRA:
    """Attach a LoRA of another trainer, switched off, with the given window, to any layers of the network.

    A layer's update is scaled as peft and diffusers scale it: by alpha / rank, or alpha / sqrt(rank) with
    use_rslora. alpha is a tensor of the layer (kohya), or in the metadata (diffusers), or in
    adapter_config.json (peft). Where it is nowhere, alpha is the rank, as in diffusers.

    Raises:
        InputError: a tensor does not fit the network, or the settings do not fit a tensor. Nothing stays
            attached then.
    """
    names = LayerNames(backbone)
    # 1. Rank and alpha of each layer by its name in the network.
    sizes: dict[str, tuple[int, float]] = {}
    state: dict[str, Tensor] = {}
    for key, layer in file.layers.items():
        name = names.find(key)
        if name in sizes:
            raise InputError(f"two layers of the file are {name}, one of them {key}")
        sizes[name] = layer.rank, _alpha(file, key, layer, backbone.key_prefix + name)
        state |= {f"{name}.lora_A.weight": layer.down, f"{name}.lora_B.weight": layer.up}
    # 2. The layers, and their tensors.
    try:
        method = LoRA.on_layers(backbone, window, sizes)
    except ValueError as error:
        raise InputError(str(error)) from error  # peft's reason, for example a convolution in groups
    try:
        method.load(state)
    except InputError:
        method.remove()
        raise
    return method


class LayerNames:
    """The layers of a network by the names that files have for them."""

    def __init__(self, backbone: Backbone) -> None:
        self.prefix = backbone.key_prefix  # empty where the names themselves begin with the component
        names = [name for name, layer in backbone.network.named_modules() if isinstance(layer, LAYERS)]
        self.example = self.prefix + next(iter(backbone.motion_projections(Window(0))["v"]))
        self.names = {self.prefix + name: name for name in names}
        # kohya's keys have _ for each dot.
        self.flat_names = {name.replace(".", "_"): name for name in names}

    def find(self, key: str) -> str:
        """Return the network's name of a layer. Raises InputError if the network has no such layer."""
        stem = key.removeprefix(WRAPPER)
        if stem in self.names:
            return self.names[stem]
        stem = PREFIX.sub("", stem) if self.prefix else stem.removeprefix("lora_")
        # diffusers' old keys name the attention's processor between the attention and the layer, and omit
        # the 0 of to_out.0.
        flat = stem.replace(".processor.", ".").replace(".", "_")
        name = self.flat_names.get(f"{flat}_0" if flat.endswith("_to_out") else flat)
        if name is None:
            raise InputError(
                f"{key} names no layer of this network: the names are diffusers', here"
                f" {self.example}.lora_A.weight{self._variants()}; names of a model's original code are not"
                " taken: convert the file to diffusers' names"
            )
        return name

    def _variants(self) -> str:
        if not self.prefix:
            return ", with the component transformer or transformer_2"
        return f" (or with {WRAPPER}, diffusion_model. or lora_unet_ for {self.prefix})"


def _alpha(file: ExternalFile, key: str, layer: Layer, full_name: str) -> float:
    """alpha of a layer whose name in diffusers' pipeline is COMPONENT.MODULE."""
    if layer.alpha is not None:
        return layer.alpha
    if not file.settings:
        return float(layer.rank)
    component, _, module = full_name.partition(".")
    # A file without components describes the one network that it is for.
    settings = file.settings.get(component)
    if settings is None and (file.is_peft or not PREFIX_OF_COMPONENT.match(key)):
        settings = file.settings.get("")
    if settings is None:
        raise InputError(f"{DIFFUSERS_KEY} does not describe {component}, to which {key} belongs")
    return settings.scale(module, layer.rank) * layer.rank


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, Layer]:
    """The tensors by layer, under the name that the file has for it."""
    if not tensors:
        raise InputError("the file has no tensors")
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        if TEXT_ENCODER.match(key):
            raise InputError(f"{key} tunes the text encoder: only a LoRA of the network alone can be used")
        end, part = next(((end, part) for end, part in ENDS if end.search(key)), (None, ""))
        if end is None:
            raise InputError(f"{key} is no part of a LoRA (lora_A and lora_B, or lora_down and lora_up)")
        name = end.sub("", key)
        if part in parts[name]:
            raise InputError(f"{key} is a second {part} of {name}: a layer has one")
        parts[name][part] = tensor
    return {name: _layer(name, tensors) for name, tensors in parts.items()}


def _layer(name: str, parts: Mapping[str, Tensor]) -> Layer:
    missing = {"lora_A.weight", "lora_B.weight"} - parts.keys()
    if missing:
        raise InputError(f"{name} has no {min(missing)}: a LoRA has two tensors for each layer")
    down, up, alpha = parts["lora_A.weight"], parts["lora_B.weight"], None
    if down.ndim < 2 or up.ndim != down.ndim or down.shape[0] != up.shape[1]:
        raise InputError(
            f"{name}: the shapes {tuple(down.shape)} of lora_A and {tuple(up.shape)} of lora_B do not fit"
            " together: (rank, in) and (out, rank)"
        )
    if "alpha" in parts:
        alpha = parts["alpha"].item() if parts["alpha"].numel() == 1 else None
        if not is_alpha(alpha):
            raise InputError(f"{name}.alpha is not one number other than 0")
    return Layer(down, up, None if alpha is None else float(alpha))


def _diffusers_settings(metadata: Mapping[str, str]) -> dict[str, LoRASettings]:
    """The settings that diffusers writes into the metadata, by component; keys are COMPONENT.SETTING."""
    if DIFFUSERS_KEY not in metadata:
        return {}
    groups: dict[str, dict[str, Any]] = defaultdict(dict)
    for key, value in read_object(metadata[DIFFUSERS_KEY], DIFFUSERS_KEY).items():
        component, dot, setting = key.partition(".")
        # A network that is saved alone has no component.
        groups[component if dot else ""][setting if dot else key] = value
    settings = {
        component: read_settings(values, f"{DIFFUSERS_KEY} of {component}" if component else DIFFUSERS_KEY)
        for component, values in groups.items()
        if component in (*COMPONENTS, "")
    }
    if not settings:
        raise InputError(f"{DIFFUSERS_KEY} describes no {', '.join(COMPONENTS)}")
    return settings


def _check_plain_metadata(layers: Mapping[str, Layer], metadata: Mapping[str, str]) -> None:
    """Refuse files whose alpha is unknown, or is stated where peft and diffusers do not read it.

    diffusers scales them by 1, which is right if alpha equals the rank.
    """
    stated = False
    for key, text in _flat(metadata).items():
        if PLAIN_RSLORA.search(key) and text.lower() not in ("false", "none", "null", "0", ""):
            raise InputError(f"the metadata says {key}={text}, which neither diffusers nor peft reads there")
        if not PLAIN_ALPHA.search(key) or text.lower() in ("none", "null", ""):
            continue
        stated = True
        for name, layer in layers.items():
            if not _is_number(text, layer.rank):
                raise InputError(
                    f"the metadata says {key}={text}, which neither diffusers nor peft reads there, and"
                    f" {name} has rank {layer.rank}: write alpha into {DIFFUSERS_KEY}, or a tensor .alpha for"
                    " each layer"
                )
    wrapped = next((name for name in layers if name.startswith(WRAPPER)), None)
    if wrapped is not None and not stated:
        raise InputError(
            f"{wrapped} is a name of peft, which stores alpha in {PEFT_CONFIG_NAME}: put it beside the file,"
            f" and name the file {PEFT_FILE_NAME}"
        )


def _is_number(text: str, number: int) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


def _flat(metadata: Mapping[str, str]) -> dict[str, str]:
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
