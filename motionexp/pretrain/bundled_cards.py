"""What the cards of the bundled text-to-video models and of the classifier say beside what was measured."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file

from motionexp.config.schema import BUNDLED
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.pretrain.cards import Facts, seen, write_card
from motionexp.pretrain.videos import FOLDER

TRAINING = {"tiny_latte": "latte", "tiny_unet3d": "unet3d", "tiny_cogvideox": "cogvideox"}
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
}
DATA = "videos of the bundled world's pretraining part, and single frames of them"
OF_LATTE = "; in the first 4,400 steps surfaces were finer and fainter"
SAMPLES = {
    "tiny_latte": "single frames, 192 a step, at first and in three steps of four; else videos, 32 a step",
    "tiny_unet3d": "single frames, 96 a step, at first and in a step of four; else videos of 8 to 32 frames,"
    " 192 frames a step",
    "tiny_cogvideox": "single frames, 128 a step, at first and in a step of eight; else videos, 32 a step",
}

GUIDANCE = {
    "tiny_latte": "The guidance was chosen (of 2, 2.5 and 3) on 64 of these captions.",
    "tiny_cogvideox": "The guidance was chosen (of 2 and 3) on 64 of these captions.",
}
AIMS = {"colour": 0.9, "surface": 0.9, "shape": 0.9, "background": 0.9, "motion": 0.85}
"""What share of natural samples should be right."""


def parameters(folder: Path) -> int:
    """Count the numbers in all safetensors files below a folder."""
    files = [load_file(path) for path in folder.rglob("*.safetensors")]
    return sum(tensor.numel() for file in files for tensor in file.values())


def last_step(training: Path) -> int:
    """Return the last step in a training's log."""
    return int(json.loads((training / "log.jsonl").read_text().splitlines()[-1])["step"])


def short_of_aims(rates: Mapping[str, float]) -> str:
    """Say of natural samples which attributes are right in fewer of them than was aimed at."""
    short = [f"{name} ({rates[name]:.3f}, aim {aim:g})" for name, aim in AIMS.items() if rates[name] < aim]
    return f"Short of what was aimed at in natural samples: {', '.join(short)}." if short else ""


def write_model_card(name: str, results: Mapping[str, Mapping[str, float]], sampler: SamplerSettings) -> None:
    """Write the card of a text-to-video model, where its training's log lies in ``outputs/pretrain``."""
    training = FOLDER / TRAINING[name] / "training"
    if not (training / "log.jsonl").exists():
        return
    told = (
        f"Share of samples that the classifier reads as their caption says, at {sampler.steps} steps and"
        f" guidance {sampler.guidance_scale:g}, on captions and seeds not used in training; an abstention"
        " counts as wrong.",
        GUIDANCE.get(name, ""),
        short_of_aims(results["samples, natural"]),
        "`psnr` is the VAE's, in dB.",
    )
    facts = Facts(
        title=name,
        library="diffusers",
        purpose=PURPOSE[name],
        command="make pretrain",
        data=DATA + (OF_LATTE if name == "tiny_latte" else ""),
        samples=SAMPLES[name],
        seeds="weights from 0; scenes, noise and timesteps from each step's index",
        steps=last_step(training),
        training=training,
        parameters=parameters(BUNDLED / name),
        quality=results,
        measured=" ".join(filter(None, told)),
    )
    write_card(BUNDLED / name, facts)


def write_classifier_card(results: Mapping[str, Mapping[str, float]]) -> None:
    """Write the card of the attribute classifier, where its training's log lies in ``outputs/pretrain``."""
    training = FOLDER / "classifier" / "training"
    if not (training / "log.jsonl").exists():
        return
    facts = Facts(
        title="Attribute classifier",
        library="motionexp",
        purpose="Reads colour, surface, shape, background and motion of a video of the bundled world, or "
        "abstains.",
        command="python -m motionexp.pretrain.classifier",
        data="videos of the bundled world's pretraining part, a third of them ruined",
        samples=seen(last_step(training), 36),
        seeds="weights from 0; videos and their degradation from each step's index",
        steps=last_step(training),
        training=training,
        parameters=parameters(BUNDLED / "classifier"),
        quality=results,
        measured="Share of videos read right, and share rejected of those that have to be, on seeds not used "
        "in training; an abstention counts as wrong.",
    )
    write_card(BUNDLED / "classifier", facts)
