"""Train the small Latte; ``pretrain.bundle`` will then assemble ``bundled/tiny_latte``.

First come single frames alone, which teach appearance at a sixteenth of the cost. Then come videos and some
single frames. The network predicts v (Salimans and Ho, 2022), well scaled at both ends of the schedule.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, LatteTransformer3DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5EncoderModel, T5Tokenizer

from motionexp.scripts.pretrain import text_encoder
from motionexp.scripts.pretrain.denoising import EMPTY_SHARE, noised, single_frames
from motionexp.scripts.pretrain.latents import Latents
from motionexp.scripts.pretrain.loop import in_bf16, muon_and_adamw, options, train
from motionexp.scripts.pretrain.vae import frame_latents
from motionexp.scripts.pretrain.videos import FOLDER, PretrainingVideos

FRAMES = 16
MAX_TOKENS = 24
SCHEDULER = {
    "beta_start": 1e-4,
    "beta_end": 2e-2,
    "beta_schedule": "linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "timestep_spacing": "leading",
}


def build(caption_channels: int) -> LatteTransformer3DModel:
    """Return an untrained network: 4 spatial and 4 temporal blocks of width 192, 16 tokens a frame."""
    return LatteTransformer3DModel(
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        cross_attention_dim=192,
        attention_bias=True,
        sample_size=16,
        patch_size=4,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=caption_channels,
        video_length=FRAMES,
    )


@dataclass
class Captions:
    """Embedded captions of all videos, as token ids to an embedding table of distinct captions.

    Attributes:
        embeds: (N, L, D). lengths: (N,). empty: (L, D), the empty caption's embedding at every position;
            the stock pipeline crops it to the caption's length.
    """

    embeds: Tensor
    lengths: Tensor
    empty: Tensor

    @classmethod
    @torch.no_grad()
    def embed(cls, captions: list[str], tokenizer: T5Tokenizer, encoder: T5EncoderModel) -> "Captions":
        tokens = tokenizer([*captions, ""], padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
        parts = [
            encoder(input_ids=ids, attention_mask=mask).last_hidden_state.half()
            for ids, mask in zip(tokens.input_ids.split(512), tokens.attention_mask.split(512), strict=True)
        ]
        embeds = torch.cat(parts)  # (N + 1, L, D), the empty caption last
        return cls(embeds[:-1], tokens.attention_mask[:-1].sum(1), embeds[-1])

    def batch(self, rows: np.ndarray, empty: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, L, D) and lengths (B,); the empty caption where ``empty`` (B,) is true."""
        lengths = self.lengths[rows]
        embeds = torch.where(empty[:, None, None], self.empty, self.embeds[rows])
        return embeds[:, : int(lengths.max())].float(), lengths


class Denoiser(nn.Module):
    """The v-prediction loss of one batch, with the caption's padding masked out of cross-attention."""

    def __init__(self, network: LatteTransformer3DModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, noisy: Tensor, t: Tensor, embeds: Tensor, lengths: Tensor) -> Tensor:
        # Cross-attention runs on the frames of all videos as one batch: (B, 1, L) to (B * F, 1, L).
        frames = noisy.shape[2]
        padding = torch.arange(embeds.shape[1])[None] >= lengths[:, None]
        bias = (padding.to(noisy.dtype) * -10_000.0)[:, None].repeat_interleave(frames, 0)
        output: Tensor = self.network(
            noisy,
            t,
            embeds,
            encoder_attention_mask=bias,
            enable_temporal_attentions=frames > 1,
            return_dict=False,
        )[0]
        return output


def main() -> None:
    """Train and save the network."""
    parser = options(__doc__, "latte", steps=14_000)
    parser.add_argument("--image-steps", type=int, default=4_000, help="steps on single frames alone")
    parser.add_argument("--image-batch", type=int, default=192, help="single frames in a step without videos")
    parser.add_argument(
        "--start", type=Path, help="continue from this pipeline, such as motionexp/bundled/tiny_latte"
    )
    args = parser.parse_args()
    videos = PretrainingVideos(args.videos)
    vae = AutoencoderKL.from_pretrained((args.start or FOLDER) / "vae").to(torch.bfloat16)
    tokenizer, encoder = text_encoder.load(args.start or FOLDER / "text_encoder")
    latents = Latents(videos, frame_latents(vae), FOLDER / "latents")
    scenes = videos.scenes()
    moving = Captions.embed([scene.caption for scene in scenes], tokenizer, encoder)
    still = Captions.embed([scene.still_caption for scene in scenes], tokenizer, encoder)
    alphas = DDIMScheduler(**SCHEDULER).alphas_cumprod
    torch.manual_seed(0)
    network = build(encoder.config.d_model)
    if args.start:
        network = LatteTransformer3DModel.from_pretrained(args.start / "transformer", dtype=torch.float32)
    model = Denoiser(network)

    def loss(step: int) -> Tensor:
        rng, generator = np.random.default_rng([2, step]), torch.Generator().manual_seed(step)
        images = step < args.image_steps or step % 4 != 0
        rows = rng.integers(len(videos), size=args.image_batch if images else args.batch)
        clean = single_frames(latents, rows, FRAMES, rng) if images else latents.batch(rows)
        empty = torch.rand(len(rows), generator=generator) < EMPTY_SHARE
        embeds, lengths = (still if images else moving).batch(rows, empty)
        # One t in each of B equal slices of the schedule: the loss varies less between steps. Once videos are
        # trained on, single frames mainly teach surfaces, which are set at low t.
        top = 800 if images and step >= args.image_steps else 1000
        t = ((torch.arange(len(rows)) + torch.rand(len(rows), generator=generator)) * top / len(rows)).long()
        noisy, velocity = noised(clean, t, alphas, generator)
        with sdpa_kernel(SDPBackend.MATH):
            output = in_bf16(model, noisy, t, embeds.bfloat16(), lengths)
        return (output.float() - velocity).square().mean()

    # Muon for the blocks' matrices, AdamW for the rest.
    optimisers = muon_and_adamw(model, args.rate, lambda name: "blocks" in name and "table" not in name)
    train(args, model, optimisers, loss, ema=0.9995)
    model.network.save_pretrained(args.output / "transformer")


if __name__ == "__main__":
    main()
