"""How large the real models are: `python -m motionexp.scripts.model_sizes [FILE]`.

Prints the tables, and writes them to FILE (default: `docs/models.md`). The real networks are built from their
configurations without weights, on the meta device: a minute, and no memory. The bundled are loaded.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import cast

import torch
from hydra.utils import get_object
from torch import nn

from motionexp.backbones.catalog import MODELS, RealModel
from motionexp.config.compose import load
from motionexp.config.schema import JobConfig
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.files import write_whole
from motionexp.methods.base import EVERYWHERE
from motionexp.methods.full_rank import FullRank
from motionexp.methods.lora import LoRA
from motionexp.scripts.model_jobs import jobs_of

COLUMNS = ("model", "network", "motion attentions", "LoRA", "full rank v, o", "full rank q, k, v, o")
CONF_COLUMNS = ("model", "hub", "revision", "default τ")

HEAD = """\
# The real models in numbers

Counted by `python -m motionexp.scripts.model_sizes`, from configurations alone, without weights.
*Network*: the denoising network, without VAE and text encoder. *LoRA*: rank 4 on v and o of the motion
attention. *Full rank*: weights and biases of the same layers, and of q, k, v and o. *Frames*: those of
`model=NAME`, and what `frames=` takes. *Unverified*: not, or not all, from files that the model's owner has
on the hub.

"""

CONF_HEAD = """
What `model=NAME` takes, from `conf/model/NAME.yaml`. *Revision*: the commit, twelve digits of it; *moving*: a
branch, whose files may change. *Placeholder*: Latte's τ, until this model's own probe has been run, as
`python run.py probe=tampering model=NAME`; the boundary that it finds goes into that file, and `tau=auto`
takes it ([probes](probes.md#as-τ)).

"""

BUNDLED_HEAD = """
The bundled models, by the same count; cards in `motionexp/bundled/`:

"""

NOTES = """
In the U-Nets, motion attention is both attentions of every temporal transformer (`temp_attentions`, and
`transformer_in` at the network's entry): they see a place along time alone. Convolutions along time,
attention within frames and to the caption are left alone.

Latte's 516,096 are the first paper's figure. Its 673 million for the base model are not what diffusers'
class counts: 1,057,246,880, the cross-attention to the text included.

None of these weights has been loaded here: what is tested are the same classes with small random weights, in
the hubs' layouts, against diffusers' own pipelines. Nor have the revisions been fetched: they are the commits
that the hub or public projects name.

`show1` is sampled by DDIM here, with x_0 clipped to the pictures' range; its authors take DPM-Solver++ with
dynamic thresholding (x_0 clipped frame by frame at a quantile of it). The schedule of noise is theirs.
Samples may look different from theirs for that alone.
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
    return _counts(network, model.projections(network))


def count_bundled(cfg: JobConfig) -> Counts:
    """The same of a bundled model, with its weights."""
    model = cfg.model
    backbone: Backbone = get_object(model._target_)(model.path, name=model.name, fps=model.fps)
    return _counts(backbone.network, backbone.motion_projections(EVERYWHERE))


def _counts(network: nn.Module, names: dict[str, list[str]]) -> Counts:
    backbone = cast(Backbone, _Sized(network, names))
    return Counts(
        network=sum(parameter.numel() for parameter in network.parameters()),
        attentions=len(names["v"]),
        lora=LoRA.trainable_parameters(backbone, rank=4),
        full_vo=FullRank.trainable_parameters(backbone),
        full_qkvo=FullRank.trainable_parameters(backbone, projections=("q", "k", "v", "o")),
    )


def markdown(models: Sequence[RealModel] = MODELS) -> str:
    """The page: a line a model."""
    real = [
        [
            *_cells(model.name, count(model)),
            model.frames,
            model.source if model.verified else f"**unverified**: {model.source}",
        ]
        for model in models
    ]
    bundled = [_cells(cfg.model.name, count_bundled(cfg)) for cfg in jobs_of([], load)]
    numbers = len(COLUMNS) - 1
    parts = (
        *(HEAD, _table([*COLUMNS, "frames", "configuration from"], real, numbers)),
        *(CONF_HEAD, _table(CONF_COLUMNS, [_conf_cells(model) for model in models])),
        *(BUNDLED_HEAD, _table(COLUMNS, bundled, numbers), NOTES),
    )
    return "".join(parts)


def _conf_cells(model: RealModel) -> list[str]:
    conf = load([f"model={model.name}"]).model
    tau = f"{conf.default_tau:g}" + " (placeholder)" * model.tau_is_placeholder
    return [f"`{model.name}`", conf.path.replace("+", " + "), _shown(conf.revision or "main"), tau]


def _shown(revision: str) -> str:
    commits = revision.split("+")
    if all(re.fullmatch("[0-9a-f]{40}", each) for each in commits):
        return " + ".join(each[:12] for each in commits)
    return f"**moving**: {revision}"


def _cells(name: str, counts: Counts) -> list[str]:
    return [f"`{name}`", *(f"{number:,}" for number in astuple(counts))]


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """A Markdown table; so many columns after the first hold numbers."""
    sides = ["---", *["---:"] * numbers, *["---"] * (len(columns) - 1 - numbers)]
    rows = [f"| {' | '.join(cells)} |" for cells in (columns, *lines)]
    return "\n".join([rows[0], f"|{'|'.join(sides)}|", *rows[1:]]) + "\n"


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
