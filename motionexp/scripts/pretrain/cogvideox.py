"""Train the small CogVideoX: ``python -m motionexp.scripts.pretrain.cogvideox``.

One attention over the tokens of the caption and of all latent frames. First single frames alone, then videos
of 17 frames and some frames. The network predicts v under CogVideoX-2b's own schedule, down to pure noise.
"""

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from torch import Tensor, nn

from motionexp.scripts.pretrain.denoising import single_frames, velocity_loss, without_some
from motionexp.scripts.pretrain.loop import muon_and_adamw, options, train
from motionexp.scripts.pretrain.text_encoder import MAX_TOKENS, embedded
from motionexp.scripts.pretrain.vae3d import FRAMES, video_latents
from motionexp.scripts.pretrain.videos import FOLDER, Latents, PretrainingVideos

STILLS = (4, 12)
"""Frames that are encoded alone, as videos of one frame."""
# diffusers' own betas and shift of the SNR are CogVideoX-2b's.
SCHEDULER = {
    "rescale_betas_zero_snr": True,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


def build(caption_channels: int) -> CogVideoXTransformer3DModel:
    """Return an untrained network: 6 blocks of width 160, 64 tokens a latent frame."""
    return CogVideoXTransformer3DModel(
        num_attention_heads=5,
        attention_head_dim=32,
        time_embed_dim=48,
        text_embed_dim=caption_channels,
        num_layers=6,
        sample_width=16,
        sample_height=16,
        sample_frames=FRAMES,
        max_text_seq_length=MAX_TOKENS,
    )


class Denoiser(nn.Module):
    """The network on latents with their frames after the channels."""

    def __init__(self, network: CogVideoXTransformer3DModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, noisy: Tensor, t: Tensor, embeds: Tensor) -> Tensor:
        """Return v (B, 16, F, 16, 16) for noisy latents, timesteps (B,) and captions (B, L, D)."""
        output: Tensor = self.network(
            # (B, F, C, h, w), as diffusers' class takes it.
            hidden_states=noisy.transpose(1, 2),
            encoder_hidden_states=embeds.to(noisy.dtype),
            timestep=t,
            return_dict=False,
        )[0]
        return output.transpose(1, 2)


class Batches:
    """What a step learns from: clean latents and embedded captions, by the step's index alone."""

    def __init__(self, videos: PretrainingVideos, image_steps: int, batch: int) -> None:
        self.image_steps, self.batch, self.count = image_steps, batch, len(videos)
        vae = AutoencoderKLCogVideoX.from_pretrained(FOLDER / "vae3d").to(torch.bfloat16)
        one = video_latents(vae)

        def stills(video: np.ndarray) -> Tensor:
            return torch.cat([one(video[index : index + 1]) for index in STILLS], 1)

        self.latents = Latents(videos, one, FOLDER / "latents3d")
        self.stills = Latents(videos, stills, FOLDER / "stills3d")
        scenes = videos.scenes()
        captions = [scene.caption for scene in scenes] + [scene.still_caption for scene in scenes]
        # (2N + 1, L, D), the padding with them as the stock pipeline has it.
        embeds, _ = embedded([*captions, ""], FOLDER / "text_encoder", mask_padding=False)
        self.moving, self.still, self.empty = embeds[: self.count], embeds[self.count : -1], embeds[-1]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return latents (B, 16, F, 16, 16) and captions (B, L, D) of a step."""
        rng = np.random.default_rng([13, step])
        if step < self.image_steps or step % 8 == 0:
            # Four stills cost less than one video: the appearance is learnt from them first.
            rows = rng.integers(self.count, size=4 * self.batch)
            clean = single_frames(self.stills, rows, len(STILLS), rng)
            captions = self.still[rows]
        else:
            rows = rng.integers(self.count, size=self.batch)
            clean, captions = self.latents.batch(rows), self.moving[rows]
        return clean, without_some(captions, self.empty, rng)


def main() -> None:
    """Train and save the network."""
    # A step has `--batch` videos, or four times as many single frames.
    parser = options(__doc__, "cogvideox", steps=12_450, videos=10_000)
    parser.add_argument("--image-steps", type=int, default=900, help="steps on single frames alone")
    args = parser.parse_args()
    torch.manual_seed(0)
    batches = Batches(PretrainingVideos(args.videos, FRAMES), args.image_steps, args.batch)
    model = Denoiser(build(batches.empty.shape[-1]))
    loss = velocity_loss(model, batches, CogVideoXDDIMScheduler(**SCHEDULER).alphas_cumprod)
    # Muon for the blocks' matrices, AdamW for the rest and for the modulation.
    optimisers = muon_and_adamw(
        model, args.rate, lambda name: "transformer_blocks" in name and ".norm" not in name
    )
    train(args, model, optimisers, loss)
    model.network.save_pretrained(args.output / "transformer")


if __name__ == "__main__":
    main()
