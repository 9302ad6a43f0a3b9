"""How large the real models are: `python -m motionexp.report.parameter_counts [FILE]`.

Prints the table, and writes it to FILE (default: `docs/models.md`). The networks are built from the hubs'
configurations without weights, on the meta device: a minute, and no memory.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from motionexp.backbones.base import Backbone
from motionexp.backbones.real_models import MODELS, RealModel
from motionexp.methods.direct import Direct
from motionexp.methods.lora import LoRA
from motionexp.results import write_whole
from motionexp.schedule import Window

HEAD = """\
# The real models in numbers

Counted by `python -m motionexp.report.parameter_counts`, from each hub's configuration, without weights.
*Network*: the denoising network, without VAE and text encoder. *LoRA*: rank 4 on v and o of the motion
attention. *Full rank*: weights and biases of the same layers, and of q, k, v and o. *Frames*: those of
`model=NAME`, and what `frames=` takes.

"""

NOTES = """
Latte's 516,096 are the first paper's figure. Its 673 million for the base model are not what diffusers'
class counts: 1,057,246,880, the cross-attention to the text included.

A revision is pinned in `conf/model/NAME.yaml` where it is known. None of these weights has been
loaded here: what is tested are the same classes with small random weights, in the hubs' layouts, against
diffusers' own pipelines.
"""


@dataclass(frozen=True)
class Counts:
    """Of one model; see `HEAD`."""

    network: int
    attentions: int
    lora: int
    full_vo: int
    full_qkvo: int


@dataclass(frozen=True)
class _Sized:
    """As much of a backbone as the methods' own counting reads."""

    network: nn.Module
    names: dict[str, list[str]]

    def motion_projections(self, window: Window) -> dict[str, list[str]]:
        return self.names


def count(model: RealModel) -> Counts:
    """What a model has, and what tuning it trains, by the methods' own counting."""
    with torch.device("meta"):
        network = model.build()
    names = model.projections(network)
    backbone = cast(Backbone, _Sized(network, names))
    return Counts(
        network=sum(parameter.numel() for parameter in network.parameters()),
        attentions=len(names["v"]),
        lora=LoRA.trainable_parameters(backbone, rank=4),
        full_vo=Direct.trainable_parameters(backbone),
        full_qkvo=Direct.trainable_parameters(backbone, projections=("q", "k", "v", "o")),
    )


def markdown(models: Sequence[RealModel] = MODELS) -> str:
    """The page: a line a model."""
    columns = ("model", "network", "motion attentions", "LoRA", "full rank v, o", "full rank q, k, v, o")
    lines = [f"| {' | '.join(columns)} | frames | configuration from |", "|---|" + "---:|" * 5 + "---|---|"]
    for model in models:
        counts = count(model)
        numbers = (counts.network, counts.attentions, counts.lora, counts.full_vo, counts.full_qkvo)
        source = model.source if model.verified else f"**unverified**: {model.source}"
        cells = [f"`{model.name}`", *(f"{number:,}" for number in numbers), model.frames, source]
        lines.append(f"| {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n" + NOTES


def main(arguments: Sequence[str]) -> int:
    """Print and write the page; returns the exit code."""
    path = Path(*arguments[:1]) if arguments else Path("docs/models.md")
    text = markdown()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
