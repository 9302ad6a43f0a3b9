"""Assemble ``bundled/tiny_latte`` in LattePipeline's layout: ``python -m motionexp.pretrain.bundle``.

Takes the averaged parameters of the latest checkpoint, so that it can run while training goes on.
"""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LattePipeline
from transformers import T5EncoderModel, T5Tokenizer

from motionexp.config import BUNDLED
from motionexp.pretrain.latte import SCHEDULER, build
from motionexp.pretrain.videos import FOLDER


def scheduler() -> DDIMScheduler:
    """Return the scheduler as LattePipeline wants it.

    The pipeline drops half of the network's channels as a learned variance unless the scheduler's config says
    that it learns one itself. Ours has none to drop.
    """
    config = DDIMScheduler(**SCHEDULER).config
    return DDIMScheduler.from_config({**config, "variance_type": "learned_range"})


def main() -> None:
    """Assemble and save in half precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path, default=FOLDER)
    parser.add_argument("--output", type=Path, default=BUNDLED / "tiny_latte")
    args = parser.parse_args()
    encoder = T5EncoderModel.from_pretrained(args.trained / "text_encoder" / "text_encoder")
    network = build(encoder.config.d_model)
    state = torch.load(args.trained / "latte" / "training" / "checkpoint.pt", weights_only=True, mmap=True)
    averaged = {name.removeprefix("network."): value for name, value in state["averaged"].items()}
    missing, unexpected = network.load_state_dict(averaged, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"pos_embed.pos_embed"}, missing
    pipeline = LattePipeline(
        tokenizer=T5Tokenizer.from_pretrained(args.trained / "text_encoder" / "tokenizer"),
        text_encoder=encoder,
        vae=AutoencoderKL.from_pretrained(args.trained / "vae"),
        transformer=network,
        scheduler=scheduler(),
    ).to(dtype=torch.float16)
    card = args.output / "README.md"
    kept = card.read_text() if card.exists() else ""
    shutil.rmtree(args.output, ignore_errors=True)
    pipeline.save_pretrained(args.output)
    if kept:
        card.write_text(kept)
    print(f"step {state['step']} -> {args.output}")


if __name__ == "__main__":
    main()
