"""The layers of a network by the names that LoRA files have for them: diffusers', and the original code's."""

import re
from collections.abc import Collection

from torch import nn

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError

LAYERS = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
EXPERTS = ("transformer", "transformer_2")
# What peft, ComfyUI, DiffSynth, kohya's scripts (VideoX-Fun: two _) and LyCORIS put before a layer's name.
START = re.compile(
    r"^(base_model\.model\.|(model\.)?diffusion_model\.|pipe\.dit\.|lora_unet__?|lora_(?=transformer_)|lycoris_)+"
)
COMPONENT = re.compile(r"(transformer_2|transformer|unet)[._]")
NUMBER = re.compile(r"[._](\d+)[._]")  # of a block
# What a network's blocks are called: in a file they tell the model.
BLOCKS = (
    *("blocks", "double_blocks", "single_blocks", "transformer_blocks", "single_transformer_blocks"),
    *("temporal_transformer_blocks", "down_blocks", "mid_block", "up_blocks", "joint_blocks", "layers"),
    *("input_blocks", "middle_block", "output_blocks", "transformer_2"),
)


def rows_of_layers(backbone: Backbone) -> dict[str, int]:
    """How many outputs each layer of a network has, by name; of two networks of one shape those of one."""
    network = backbone.network if backbone.key_prefix else backbone.network.get_submodule(EXPERTS[0])
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, LAYERS)}
    return {name: layer.weight.shape[0] for name, layer in layers.items()}


def expert_of_keys(keys: Collection[str], expert: str, names_noise: bool = False) -> str:
    """The one of two experts that a file is for; empty: its layers' names say so.

    Args:
        keys: the layers' names in the file.
        expert: the one that the file's own name names, as `transformer`. It is for names that begin with
            `transformer`, which diffusers writes for either expert in a file of its own.
        names_noise: the file's own name has it as high_noise or low_noise, and not as a bare word.

    Raises:
        InputError: the file's own name has high_noise, and layers are of the expert for low noise.
    """
    of_second = [
        key for key in keys if (match := COMPONENT.match(START.sub("", key))) and match[1] == EXPERTS[1]
    ]
    if not of_second:
        return expert
    if names_noise and expert == EXPERTS[0]:
        raise InputError(
            f"its own name has high_noise, and its keys name {EXPERTS[1]} ({of_second[0]}), the expert for"
            " low noise: rename the file, or its keys"
        )
    return ""


class LayerNames:
    """The layers of a backbone's network by the names that files have for them."""

    def __init__(self, backbone: Backbone) -> None:
        # Two networks of one shape have their names without the expert's.
        self.experts: tuple[str, ...] = () if backbone.key_prefix else EXPERTS
        self.component, self.prefix = backbone.component, backbone.key_prefix
        self._rows = rows_of_layers(backbone)
        originals: dict[str, tuple[str, ...]] = {
            name: modules
            for name, modules in backbone.original_layers.items()
            # The network may lack some, such as those for images.
            if all(module in self._rows for module in modules)
        }
        # kohya's keys have _ for each dot.
        self._modules: dict[str, tuple[str, ...]] = {_flat(name): (name,) for name in self._rows}
        self._modules |= {_flat(name): modules for name, modules in originals.items()}
        self._tops = {name.split(".")[0] for name in (*self._rows, *originals)}
        self.example = self.prefix + next(iter(backbone.motion_projections(Window(0))["v"]))

    def find(self, key: str, expert: str = "") -> tuple[str, ...]:
        """Return the network's layers that a file's layer is; empty if the network has none of that name.

        `expert`: the component that the file is for, where its names do not say so.
        """
        for component, name in self._readings(key):
            modules = self._modules.get(_flat(name), ())
            if modules and not self.experts and component in ("", self.component):
                return modules
            if modules and self.experts and (chosen := expert or component) in self.experts:
                return tuple(f"{chosen}.{module}" for module in modules)
        return ()

    def rows(self, module: str) -> int:
        """How many outputs a layer has."""
        return self._rows[module.partition(".")[2] if self.experts else module]

    def lacks_expert(self, key: str) -> bool:
        """Whether both experts have a layer of that name, and nothing says which of them is meant."""
        return bool(self.experts) and not self.find(key) and bool(self.find(key, EXPERTS[0]))

    def is_of_another_model(self, key: str) -> bool:
        """Whether a name begins with a component or with blocks that this model does not have."""
        stem = START.sub("", key)
        component = COMPONENT.match(stem)
        if (
            component
            and stem.startswith(f"{component[1]}.")
            and component[1]
            not in (
                *self.experts,
                self.component,
            )
        ):
            return True
        names = [_flat(name) for _, name in self._readings(key)]
        if any(name.startswith(f"{top}_") for name in names for top in self._tops):
            return False
        return any(name.startswith(f"{blocks}_") for name in names for blocks in BLOCKS)

    def is_beyond(self, key: str) -> bool:
        """Whether a name is that of a layer in a block after the last one of a list of blocks."""
        for _, name in self._readings(key):
            number = NUMBER.search(name)
            if number is None:
                continue
            blocks = _flat(name[: number.start()])
            numbers = [
                int(block[1]) for stem in self._modules if (block := re.match(f"{blocks}_(\\d+)_", stem))
            ]
            first = _flat(f"{name[: number.start()]}.0.{name[number.end() :]}")
            if numbers and int(number[1]) > max(numbers) and first in self._modules:
                return True
        return False

    @staticmethod
    def _readings(key: str) -> list[tuple[str, str]]:
        """(component, name) as a key may be read: `transformer_` can be a component, or part of the name."""
        stem = START.sub("", key)
        component = COMPONENT.match(stem)
        return [("", stem), *([(component[1], stem[component.end() :])] if component else [])]


def _flat(name: str) -> str:
    # diffusers' old keys name the attention's processor between the attention and the layer, and omit the 0
    # of to_out.0.
    flat = name.replace(".processor.", ".").replace(".", "_")
    return f"{flat}_0" if flat.endswith("_to_out") else flat
