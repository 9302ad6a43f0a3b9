"""Train the small Latte with one cause changed: ``python -m motionexp.scripts.pretrain.interventions NAME``.

VAE and text encoder are those of the bundled ``tiny_latte``. Only the denoiser is trained anew, with the
steps, seeds and settings of the bundled one. The pipeline is written to ``outputs/interventions/NAME``, for
``model=tiny_latte model.path=outputs/interventions/NAME model.name=NAME``. Stopped, the same command goes on.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, LattePipeline

from motionexp.config.schema import BUNDLED
from motionexp.scripts.pretrain import latte, text_encoder
from motionexp.scripts.pretrain.bundle import latte_scheduler
from motionexp.scripts.pretrain.denoising import EMPTY_SHARE
from motionexp.scripts.pretrain.vae import frame_latents
from motionexp.scripts.pretrain.videos import FOLDER, Latents, PretrainingVideos

BASE = BUNDLED / "tiny_latte"
OUTPUT = Path("outputs/interventions")


@dataclass(frozen=True)
class Intervention:
    """What differs from the training of ``tiny_latte``.

    Attributes:
        about: in words.
        scheduler: settings of the noise schedule, beside those of `latte.SCHEDULER`.
        chroma: factor of the objects' colour contrast.
        unnamed: what captions leave out, as in `motionexp.data.shapes.grammar.UNNAMED`.
        empty_share: of captions that are replaced by the empty one.
    """

    about: str
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    chroma: float = 1.0
    unnamed: str = ""
    empty_share: float = EMPTY_SHARE


INTERVENTIONS = {
    "schedule_scaled_linear": Intervention(
        "the noise schedule of tiny_unet3d",
        {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 2.5e-2},
    ),
    # Within the grid of the probes: the cosine schedule would put the motion at t = 967.
    "schedule_double": Intervention(
        "the schedule of tiny_latte with twice the betas", {"beta_start": 2e-4, "beta_end": 4e-2}
    ),
    "colour_contrast_half": Intervention("half of the objects' colour contrast", chroma=0.5),
    "colour_contrast_double": Intervention("twice the objects' colour contrast", chroma=2.0),
    "no_colour_words": Intervention("captions without words for colours", unnamed="colour"),
    "uncaptioned": Intervention("no captions", empty_share=1.0),
}


def write_pipeline(intervention: Intervention, network: Any, folder: Path) -> None:
    """Write the network with the VAE and the text encoder of the base, in half precision."""
    tokenizer, encoder = text_encoder.load(BASE)
    vae = AutoencoderKL.from_pretrained(BASE / "vae", torch_dtype=torch.float32)
    # diffusers writes where the VAE was loaded from, and the hash of the weights would depend on the machine.
    vae.register_to_config(_name_or_path="tiny_latte")
    scheduler = latte_scheduler({**latte.SCHEDULER, **intervention.scheduler})
    pipeline = LattePipeline(tokenizer, encoder, vae, network, scheduler)
    pipeline.to(dtype=torch.float16).save_pretrained(folder)


def train(name: str, args: argparse.Namespace) -> None:
    """Train an intervention's denoiser, and write its pipeline."""
    intervention = INTERVENTIONS[name]
    scheduler = latte_scheduler({**latte.SCHEDULER, **intervention.scheduler})
    # T5's width; all captions have it.
    width = text_encoder.load(BASE)[1].config.d_model
    torch.manual_seed(0)
    model = latte.Denoiser(latte.build(width))
    if not args.untrained:
        videos = PretrainingVideos(args.videos, chroma=intervention.chroma)
        vae = AutoencoderKL.from_pretrained(BASE / "vae", torch_dtype=torch.float32).to(torch.bfloat16)
        folder = FOLDER / f"latents-of-bundled-chroma-{intervention.chroma:g}"
        latents = Latents(videos, frame_latents(vae), folder)
        scenes = [replace(scene, unnamed=intervention.unnamed) for scene in videos.scenes()]
        captions = latte.captions_of(scenes, BASE)
        latte.train_latte(args, model, latents, captions, scheduler.alphas_cumprod, intervention.empty_share)
    write_pipeline(intervention, model.network, OUTPUT / name)
    print(f"{intervention.about} -> {OUTPUT / name}")


def main() -> None:
    """Train one intervention and write its pipeline."""
    parser = latte.parser_of(__doc__, "")
    parser.add_argument("name", choices=list(INTERVENTIONS))
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="train nothing: a prediction reads the VAE and schedule alone",
    )
    args = parser.parse_args()
    args.output = FOLDER / "interventions" / args.name
    train(args.name, args)


if __name__ == "__main__":
    main()
