"""External LoRAs: files of other trainers, with diffusers' names for the layers or the original code's."""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from peft.tuners.lora import LoraLayer
from torch import Tensor

from motionexp.config.adapter_files import PEFT_CONFIG_NAME, PEFT_FILE_NAME
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.diffusion.window_in_steps import span_of
from motionexp.errors import InputError
from motionexp.methods.layer_names import LayerNames, expert_of_keys
from motionexp.methods.lora import DIFFUSERS_KEY, LoRA
from motionexp.methods.lora_config import (
    LoRASettings,
    flat_metadata,
    is_alpha,
    is_number,
    read_object,
    read_settings,
)

LOG = logging.getLogger(__name__)
# The end of a key names its tensor: a layer computes x + scale * up(down(x)), A is down and B is up.
ENDS = (
    (re.compile(r"[._]lora(_A(\.\w+)?|[._]down)\.weight$"), "lora_A.weight"),
    (re.compile(r"[._]lora(_B(\.\w+)?|[._]up)\.weight$"), "lora_B.weight"),
    (re.compile(r"\.alpha$"), "alpha"),
    (re.compile(r"\.diff_b$"), "diff_b"),
)
EXPORT_KEY = "motionexp_window"  # in the metadata of files that motionexp has exported: their window
WRAPPER = "base_model.model."  # peft's
SHOWN = 4  # names of tensors that are not loaded
TEXT_ENCODER = re.compile(
    r"^(base_model\.model\.)?(text_encoder|text_model|te\d?\.|lora_te|clip_[lgh]\.|t5xxl\.|conditioner\.)"
)
COMPONENTS = ("transformer", "transformer_2", "unet")
# alpha as trainers write it into the metadata, where neither peft nor diffusers reads it.
PLAIN_ALPHA = re.compile(r"(^|\.)(lora_alpha|network_alpha|ss_network_alpha|alpha)$")
DORA = re.compile(r"dora_scale|lora_magnitude_vector")
PLAIN_RSLORA = re.compile(r"(^|\.)use_rslora$")


@dataclass(frozen=True)
class Layer:
    """One layer: A (rank, in, ...), B (out, rank, ...), alpha if it is a tensor, and the tensors' names.

    `bias`: (out,), what is added to the layer's bias, whatever alpha is; None: nothing.
    """

    down: Tensor
    up: Tensor
    alpha: float | None
    keys: tuple[str, ...]
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True)
class ExternalFile:
    """What an external LoRA says without a network: layers by the names in the file, and their settings.

    Attributes:
        layers: by the names in the file.
        settings: by the component of diffusers' pipeline, and under "" for a network that was saved alone.
        is_peft: the settings are of peft's adapter_config.json, which describes whatever lies beside it.
        unread: tensors that are no part of a layer of `layers`.
        tensors: how many the file has.
        expert: of two networks that share the timesteps, the one that it is for; empty: its layers say so.
        window: as JSON, in a file that motionexp has exported; else None.
    """

    layers: Mapping[str, Layer]
    settings: Mapping[str, LoRASettings]
    is_peft: bool
    unread: tuple[str, ...] = ()
    tensors: int = 0
    expert: str = ""
    window: str | None = None


def read_external(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    peft_config: Mapping[str, Any] | None,
    expert: str = "",
    names_noise: bool = False,
) -> ExternalFile:
    """Read the file of another trainer, as far as it can be read without a network.

    Args:
        tensors, metadata: of the file.
        peft_config: the content of peft's adapter_config.json, if it lies beside the file.
        expert, names_noise: what the file's name says of two experts; see `expert_of_keys`.

    Raises:
        InputError: no tensor is part of a LoRA's layer, or a layer has half of its tensors or more than a
            LoRA; two places state alpha; its name and its layers name two experts; or the settings are
            damaged or stand for something else than a LoRA.
    """
    layers, unread = _layers(tensors)
    settings = _diffusers_settings(metadata)
    expert = expert_of_keys(layers, expert, names_noise)
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
    window = metadata.get(EXPORT_KEY)
    return ExternalFile(layers, settings, peft_config is not None, unread, len(tensors), expert, window)


def attach(files: Sequence[ExternalFile], backbone: Backbone, window: Window) -> "ExternalLoRA":
    """Attach a LoRA of another trainer, switched off, with the given window, to any layers of the network.

    A layer's update is scaled as peft and diffusers scale it: by alpha / rank, or alpha / sqrt(rank) with
    use_rslora. alpha is a tensor of the layer (kohya), or in the metadata (diffusers), or in
    adapter_config.json (peft). Where it is nowhere, alpha is the rank, as in diffusers. A fused layer of the
    original code, such as one for q, k and v, becomes one layer for each part: A is shared, B is cut.

    Args:
        files: one, or one for each expert.
        backbone: with the network.
        window: at which it acts.

    Raises:
        InputError: no layer of the files is one of the network; a file has layers of another model; there is
            a file for each of two experts and one network; a tensor does not fit the network, or the settings
            do not fit a tensor. Nothing stays attached then.
    """
    names = LayerNames(backbone)
    if len(files) > 1 and not names.experts:
        raise InputError(
            f"it has {len(files)} files, one for each of two experts, and {backbone.name} has one network:"
            " name one of the files"
        )
    # 1. Rank, alpha and tensors of each layer by its name in the network.
    sizes: dict[str, tuple[int, float]] = {}
    state: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    missing: list[str] = []
    unread = [key for file in files for key in file.unread]
    for file in files:
        for key, layer in file.layers.items():
            modules = names.find(key, file.expert)
            if not modules:
                missing.append(key)
                unread += layer.keys
            for module, up, bias in _parts(key, layer, modules, names):
                if module in sizes:
                    raise InputError(f"two layers of the file are {module}, one of them {key}")
                sizes[module] = layer.rank, _alpha(file, key, layer, backbone.key_prefix + module)
                state |= {f"{module}.lora_A.weight": layer.down, f"{module}.lora_B.weight": up}
                biases |= {} if bias is None else {module: bias}
    _check_missing(missing, names, is_all=not sizes)
    # 2. The layers, and their tensors.
    try:
        count = sum(file.tensors for file in files)
        method = ExternalLoRA(backbone, window, sizes, count, tuple(unread), biases)
    except ValueError as error:
        raise InputError(str(error)) from error  # peft's reason, for example a convolution in groups
    try:
        method.load(state)
    except InputError as error:
        method.remove()
        raise InputError(f"{error}; is it a LoRA for another size of the model?") from error
    return method


class ExternalLoRA(LoRA):
    """A LoRA of another trainer, on the layers that its file names.

    Attributes:
        file_tensors: how many tensors the files have.
        unread: those of them that are not loaded.
        biases: {layer: (out,)}, added to its output while the LoRA is on.
    """

    is_single = False  # its file is not one of motionexp

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        sizes: Mapping[str, tuple[int, float]],
        file_tensors: int,
        unread: tuple[str, ...],
        biases: Mapping[str, Tensor],
    ) -> None:
        self._attach(backbone, window, sizes, {"layers": len(sizes)})
        self.sizes, self.file_tensors, self.unread = sizes, file_tensors, unread
        # Whatever the window reaches, the file may be of one of two experts.
        self.span = span_of(backbone.spans, {name.partition(".")[0] for name in sizes})
        self.biases = biases
        for name, bias in biases.items():
            self.layers[name].register_forward_hook(partial(self._add_bias, bias))
        for key in unread:
            LOG.debug("not loaded: %s", key)

    def _add_bias(self, bias: Tensor, layer: LoraLayer, _: Any, output: Tensor) -> Tensor:
        if layer.disable_adapters:
            return output
        # (out,), or (out, 1, ...) for a convolution.
        shape = (-1, *(1,) * (layer.get_base_layer().weight.ndim - 2))
        return output + self.scale * bias.reshape(shape).to(output)

    @property
    def note(self) -> str:
        """What of the file is loaded: numbers of tensors and layers, ranks and alphas, and what is not."""
        ranks = sorted({rank for rank, _ in self.sizes.values()})
        alphas = sorted({alpha for _, alpha in self.sizes.values()})
        loaded = self.file_tensors - len(self.unread)
        count = f"all {loaded}" if not self.unread else f"{loaded} of {self.file_tensors}"
        shown, more = self.unread[:SHOWN], len(self.unread) - SHOWN
        rest = f"; not loaded: {', '.join(shown)}" if shown else ""
        rest += f" and {more} others (hydra.verbose={__name__} prints all)" if more > 0 else ""
        return (
            f"{count} tensors loaded, into {len(self.sizes)} layers (rank {_span(ranks)}, alpha"
            f" {_span(alphas)}){rest}"
        )


def _span(numbers: Sequence[float]) -> str:
    return f"{numbers[0]:g}" if len(numbers) == 1 else f"{numbers[0]:g} to {numbers[-1]:g}"


def _check_missing(layers: Sequence[str], names: LayerNames, *, is_all: bool) -> None:
    """Raise InputError if the layers that the network lacks are all of the file's, or of another model."""
    unclear = next(filter(names.lacks_expert, layers), None)
    if unclear is not None:
        raise InputError(
            f"{unclear} does not say of which expert it is: begin names with the component transformer. or"
            " transformer_2., or name the file high or low"
        )
    if is_all:
        raise InputError(
            f"{layers[0]} names no layer of this network: names are those of diffusers, here"
            f" {names.example}.lora_A.weight, or those of the model's original code"
        )
    deeper = next(filter(names.is_beyond, layers), None)
    if deeper is not None:
        raise InputError(
            f"{deeper} is of a block after the last one of this network: the file is for a deeper model"
        )
    foreign = next(filter(names.is_of_another_model, layers), None)
    if foreign is not None:
        raise InputError(
            f"{foreign} is of another model than {names.example}: the file has layers of two models"
        )


def _parts(
    key: str, layer: Layer, modules: Sequence[str], names: LayerNames
) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """The network's layers that a file's layer is, with their rows of B and of the bias."""
    rows = [names.rows(module) for module in modules]
    if layer.bias is not None and modules and layer.bias.shape != (sum(rows),):
        raise InputError(
            f"{key}: diff_b is {tuple(layer.bias.shape)}, where this layer has {sum(rows)} outputs"
        )
    if len(modules) < 2:
        yield from ((module, layer.up, layer.bias) for module in modules)
        return
    if sum(rows) != len(layer.up):
        raise InputError(
            f"{key}: lora_B has {len(layer.up)} rows, where this network's fused layer has {sum(rows)}"
        )
    ups = [part.contiguous() for part in layer.up.split(rows)]
    biases = [None] * len(rows) if layer.bias is None else layer.bias.split(rows)
    yield from zip(modules, ups, biases, strict=True)


def _alpha(file: ExternalFile, key: str, layer: Layer, full_name: str) -> float:
    """alpha of a layer whose name in diffusers' pipeline is COMPONENT.MODULE."""
    if layer.alpha is not None:
        return layer.alpha
    if not file.settings:
        return float(layer.rank)
    component, _, module = full_name.partition(".")
    # A file without components describes the one network that it is for.
    settings = file.settings.get(component)
    if settings is None and (file.is_peft or not key.startswith(tuple(f"{name}." for name in COMPONENTS))):
        settings = file.settings.get("")
    if settings is None and file.expert and len(file.settings) == 1:
        (settings,) = (
            file.settings.values()
        )  # diffusers calls either expert `transformer` in a file of its own
    if settings is None:
        raise InputError(f"{DIFFUSERS_KEY} does not describe {component}, to which {key} belongs")
    return settings.scale(module, layer.rank) * layer.rank


def _layers(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Layer], tuple[str, ...]]:
    """The tensors by layer, under the name that the file has for it; and the names of all other tensors."""
    if not tensors:
        raise InputError("the file has no tensors")
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    keys: dict[str, list[str]] = defaultdict(list)
    unread = []
    for key, tensor in tensors.items():
        end, part = next(((end, part) for end, part in ENDS if end.search(key)), (None, ""))
        if end is None or TEXT_ENCODER.match(key):
            unread.append(key)
            continue
        name = end.sub("", key)
        if part in parts[name]:
            raise InputError(f"{key} is a second {part} of {name}: a layer has one")
        parts[name][part] = tensor
        keys[name].append(key)
    for name in [name for name, part in parts.items() if part.keys() == {"diff_b"}]:  # of a norm
        del parts[name]
        unread += keys.pop(name)
    if not parts and TEXT_ENCODER.match(unread[0]):
        raise InputError(f"{unread[0]} tunes the text encoder: only a LoRA of the network can be used")
    for key in unread:
        # Else half of what a layer was trained to do would be applied.
        if not parts or DORA.search(key) or any(key.startswith(f"{name}.") for name in parts):
            raise InputError(f"{key} is no part of a LoRA (lora_A and lora_B, or lora_down and lora_up)")
    return {name: _layer(name, part, tuple(keys[name])) for name, part in parts.items()}, tuple(unread)


def _layer(name: str, parts: Mapping[str, Tensor], keys: tuple[str, ...]) -> Layer:
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
    return Layer(down, up, None if alpha is None else float(alpha), keys, parts.get("diff_b"))


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
    for key, text in flat_metadata(metadata).items():
        if PLAIN_RSLORA.search(key) and text.lower() not in ("false", "none", "null", "0", ""):
            raise InputError(f"the metadata says {key}={text}, which neither diffusers nor peft reads there")
        if not PLAIN_ALPHA.search(key) or text.lower() in ("none", "null", ""):
            continue
        stated = True
        for name, layer in layers.items():
            if not is_number(text, layer.rank):
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
