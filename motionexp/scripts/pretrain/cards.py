"""Model cards of the bundled checkpoints, written from measurements and from the training's log."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from motionexp.config.schema import BUNDLED
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.jobs.provenance import device_name
from motionexp.results.formats import Grid
from motionexp.scripts.pretrain.videos import FOLDER


@dataclass(frozen=True)
class Facts:
    """The facts of a card that its training's log and weights do not hold.

    Attributes:
        title: of the card. library: that loads the folder. purpose: of the model, in sentences.
        command: that trains it. data: of the training, in words. samples: their number in words, or the
            number in one step. seeds: in words. training: folder of the run, written by ``loop.train``.
        quality: numbers by row and column, measured on data not trained on. measured: how, in sentences.
        origin: what training began with.
    """

    title: str
    library: str
    purpose: str
    command: str
    data: str
    samples: str | int
    seeds: str
    training: Path
    quality: Mapping[str, Mapping[str, float]]
    measured: str
    origin: str = "nothing"


def read_log(folder: Path) -> tuple[int, float, float]:
    """Return a run's steps, seconds and last loss; pauses between its calls do not count.

    The steps are those of ``checkpoint.pt``, the rest is from ``log.jsonl``.
    """
    steps = torch.load(folder / "checkpoint.pt", weights_only=True, mmap=True)["step"]
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    gaps = np.diff([record["time"] for record in records])
    seconds = float(gaps[gaps < 10 * np.median(gaps)].sum()) if len(gaps) else 0.0
    return int(steps), seconds, float(records[-1]["loss"])


def write_card(folder: Path, facts: Facts) -> None:
    """Write ``README.md`` into a model's folder; without a log of its training nothing is written."""
    if not (facts.training / "log.jsonl").exists():
        return
    steps, seconds, loss = read_log(facts.training)
    batch = facts.samples
    files = [load_file(path) for path in folder.rglob("*.safetensors")]
    parameters = sum(tensor.numel() for file in files for tensor in file.values())
    columns = list(dict.fromkeys(column for row in facts.quality.values() for column in row))
    quality = [
        [name, *(f"{row[column]:.3f}" if column in row else "" for column in columns)]
        for name, row in facts.quality.items()
    ]
    machine = f"{device_name(torch.device('cpu'))}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    rows = {
        "data": facts.data,
        "parameters": f"{parameters:,}",
        "steps": f"{steps:,}",
        "samples seen": f"{steps * batch:,} ({batch} a step)" if isinstance(batch, int) else batch,
        "seeds": facts.seeds,
        "time": f"{seconds / 60:.0f} minutes",
        "machine": f"{machine}, torch {torch.__version__}",
        "final loss": f"{loss:.4f} (mean of the last steps)",
    }
    training = Grid(["", ""], list(rows.items()), "l").markdown()
    measured = Grid(["", *columns], quality).markdown()
    (folder / "README.md").write_text(
        f"""---
license: apache-2.0
library_name: {facts.library}
---
# {facts.title}

{facts.purpose}

Licence: Apache-2.0. Origin: trained from {facts.origin} by `{facts.command}`, on pictures that motionexp
renders; no other data or weights were used.

## Training

{training}

## Quality

{facts.measured}

{measured}

It knows the words and pictures of this world only. Its quality says nothing about photographs.
"""
    )


PURPOSE = {
    "tiny_latte": "A small text-to-video model in LattePipeline's layout, for 16 frames of 64 x 64 pixels of"
    " the bundled world: a VAE, a T5 text encoder, and a Latte of 4 spatial and 4 temporal blocks, for v.",
    "tiny_unet3d": "A small text-to-video model in TextToVideoSDPipeline's layout (ModelScope's family), for"
    " 8 to 32 frames of 64 x 64 pixels of the bundled world: tiny_latte's VAE, a CLIP text encoder trained"
    " with the network, and a 3D U-Net of spatial and temporal convolutions and attention, for v.",
    "tiny_cogvideox": "A small text-to-video model in CogVideoXPipeline's layout, for 17 frames of 64 x 64"
    " pixels of the bundled world: a 3D VAE of its own that makes one latent frame of four, tiny_latte's T5"
    " text encoder, and 6 blocks of one attention over text and video that predict v, down to zero terminal"
    " SNR.",
    "tiny_wan": "A small text-to-video model in WanPipeline's layout, for 16 frames of 64 x 64 pixels of the"
    " bundled world: tiny_latte's VAE of single frames and its T5 text encoder, and 6 blocks of one attention"
    " over the video and one to the text, trained by flow matching. (diffusers' WanPipeline decodes with a"
    " video VAE alone.)",
}

SAMPLES = {
    "tiny_latte": "single frames, 192 a step, at first and in three steps of four; else videos, 32 a step",
    "tiny_unet3d": "single frames, 96 a step, at first and in a step of four; else videos of 8 to 32 frames,"
    " 192 frames a step",
    "tiny_cogvideox": "single frames, 128 a step, at first and in a step of eight; else videos, 32 a step",
    "tiny_wan": "single frames, 192 a step, at first and in a step of four; else videos, 32 a step",
}

GUIDANCE = {
    "tiny_latte": "The guidance was chosen (of 2, 2.5 and 3) on 64 of these captions.",
    "tiny_cogvideox": "The guidance was chosen (of 2 and 3) on 64 of these captions.",
}

AIMS = {"colour": 0.9, "surface": 0.9, "shape": 0.9, "background": 0.9, "motion": 0.85}
"""Share of motion-dominant samples that should be right."""


def write_model_card(name: str, results: Mapping[str, Mapping[str, float]], sampler: SamplerSettings) -> None:
    """Write the card of a text-to-video model, where its training's log lies in ``outputs/pretrain``."""
    rates = results["samples, motion-dominant"]
    short = [
        f"{label} ({rates[label]:.3f}, aim {aim:g})" for label, aim in AIMS.items() if rates[label] < aim
    ]
    measured = (
        f"Share of samples that the classifier reads as their caption describes, at {sampler.steps} steps and"
        f" guidance {sampler.guidance_scale:g}, on captions and seeds not used in training; an abstention"
        " counts as wrong.",
        GUIDANCE.get(name, ""),
        f"Below the aim in motion-dominant samples: {', '.join(short)}." if short else "",
        "`psnr` is the VAE's, in dB.",
    )
    facts = Facts(
        title=name,
        library="diffusers",
        purpose=PURPOSE[name],
        command="make pretrain",
        data="videos of the bundled world's pretraining part, and single frames of them"
        + ("; in the first 4,400 steps surfaces were finer and fainter" if name == "tiny_latte" else ""),
        samples=SAMPLES[name],
        seeds="weights from 0; scenes, noise and timesteps from each step's index",
        training=FOLDER / name.removeprefix("tiny_") / "training",
        quality=results,
        measured=" ".join(filter(None, measured)),
    )
    write_card(BUNDLED / name, facts)


def write_classifier_card(results: Mapping[str, Mapping[str, float]]) -> None:
    """Write the card of the attribute classifier, where its training's log lies in ``outputs/pretrain``."""
    facts = Facts(
        title="Attribute classifier",
        library="motionexp",
        purpose="Classifies colour, surface, shape, background and motion of a video of the bundled world, "
        "or abstains.",
        command="python -m motionexp.scripts.pretrain.classifier",
        data="videos of the bundled world's pretraining part, a third of them corrupted",
        samples=36,
        seeds="weights from 0; videos and their degradation from each step's index",
        training=FOLDER / "classifier" / "training",
        quality=results,
        measured="Share of videos classified correctly, and share rejected of those that must be rejected, "
        "on seeds not used in training; an abstention counts as wrong.",
    )
    write_card(BUNDLED / "classifier", facts)
