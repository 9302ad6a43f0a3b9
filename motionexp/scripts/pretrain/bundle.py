"""Assemble a bundled model in its pipeline's layout: ``pretrain.bundle tiny_latte``.

Uses the averaged parameters of the latest checkpoint, so that it can run during training.
"""

import argparse
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    DDIMScheduler,
    DiffusionPipeline,
    LattePipeline,
    TextToVideoSDPipeline,
    UniPCMultistepScheduler,
    WanPipeline,
)
from torch import nn
from transformers import CLIPTokenizer

from motionexp.config.schema import BUNDLED
from motionexp.scripts.pretrain import clip_text, cogvideox, latte, text_encoder, unet3d, wan
from motionexp.scripts.pretrain.videos import FOLDER


def averaged(training: Path, module: nn.Module) -> int:
    """Load the averaged parameters of a training's checkpoint into a module; return the step."""
    state = torch.load(training / "checkpoint.pt", weights_only=True, mmap=True)
    missing, unexpected = module.load_state_dict(state["averaged"], strict=False)
    assert not unexpected, unexpected
    # Buffers are no parameters, and their values follow from the configuration.
    assert not set(missing) & {name for name, _ in module.named_parameters()}, missing
    return int(state["step"])


def tiny_latte(trained: Path) -> tuple[DiffusionPipeline, int]:
    """Return the small Latte's pipeline and the step that it comes from."""
    tokenizer, encoder = text_encoder.load(trained / "text_encoder")
    model = latte.Denoiser(latte.build(encoder.config.d_model))
    step = averaged(trained / "latte" / "training", model)
    vae = AutoencoderKL.from_pretrained(trained / "vae")
    scheduler = latte_scheduler(latte.SCHEDULER)
    return LattePipeline(tokenizer, encoder, vae, model.network, scheduler), step


def latte_scheduler(settings: Mapping[str, Any]) -> DDIMScheduler:
    """Return the scheduler of a small Latte's pipeline."""
    # LattePipeline takes half of the network's channels for a learned variance and drops them, unless the
    # scheduler's config has ``learned_range``. Our network predicts no variance.
    config = DDIMScheduler(**settings).config
    return DDIMScheduler.from_config({**config, "variance_type": "learned_range"})


def tiny_unet3d(trained: Path) -> tuple[DiffusionPipeline, int]:
    """Return the small 3D U-Net's pipeline and the step that it comes from."""
    tokenizer = CLIPTokenizer.from_pretrained(trained / "unet3d" / "tokenizer")
    encoder = clip_text.build(tokenizer)
    model = unet3d.Denoiser(encoder, unet3d.build(encoder.config.hidden_size))
    step = averaged(trained / "unet3d" / "training", model)
    vae = AutoencoderKL.from_pretrained(trained / "vae")
    scheduler = DDIMScheduler(**unet3d.SCHEDULER)
    return TextToVideoSDPipeline(vae, encoder, tokenizer, model.network, scheduler), step


def tiny_cogvideox(trained: Path) -> tuple[DiffusionPipeline, int]:
    """Return the small CogVideoX's pipeline and the step that it comes from."""
    tokenizer, encoder = text_encoder.load(trained / "text_encoder")
    model = cogvideox.Denoiser(cogvideox.build(encoder.config.d_model))
    step = averaged(trained / "cogvideox" / "training", model)
    vae = AutoencoderKLCogVideoX.from_pretrained(trained / "vae3d")
    scheduler = CogVideoXDDIMScheduler(**cogvideox.SCHEDULER)
    return CogVideoXPipeline(tokenizer, encoder, vae, model.network, scheduler), step


def tiny_wan(trained: Path) -> tuple[DiffusionPipeline, int]:
    """Return the small Wan's pipeline, whose VAE and text encoder are tiny_latte's, and its step."""
    tokenizer, encoder = text_encoder.load(wan.BASE)
    tokenizer.model_max_length = text_encoder.MAX_TOKENS
    model = wan.Denoiser(wan.build(encoder.config.d_model))
    step = averaged(trained / "wan" / "training", model)
    vae = AutoencoderKL.from_pretrained(wan.BASE / "vae", torch_dtype=torch.float32)
    # diffusers writes where the VAE was loaded from, and the hash of the weights would depend on the machine.
    vae.register_to_config(_name_or_path="tiny_latte")
    scheduler = UniPCMultistepScheduler(**wan.SCHEDULER)
    # diffusers' class asks a VAE for its factor in time, which one of single frames has not.
    pipeline = WanPipeline(tokenizer, encoder, None, scheduler, model.network)
    pipeline.register_modules(vae=vae)
    return pipeline, step


MODELS: dict[str, Callable[[Path], tuple[DiffusionPipeline, int]]] = {
    model.__name__: model for model in (tiny_latte, tiny_unet3d, tiny_cogvideox, tiny_wan)
}


def main() -> None:
    """Assemble and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("--trained", type=Path, default=FOLDER)
    parser.add_argument("--output", type=Path, help="instead of the bundled model's folder")
    args = parser.parse_args()
    folder = args.output or BUNDLED / args.model
    pipeline, step = MODELS[args.model](args.trained)
    # The folder is written anew, in half precision, and its card stays.
    card = folder / "README.md"
    text = card.read_text() if card.exists() else ""
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    if text:
        card.write_text(text)
    print(f"step {step} -> {folder}")


if __name__ == "__main__":
    main()
