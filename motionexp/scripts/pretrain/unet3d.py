"""Train the small 3D U-Net: ``python -m motionexp.scripts.pretrain.unet3d``.

Its text encoder is trained with it, on latents of the small Latte's VAE. First come single frames alone, then
videos of 8 to 32 frames and some single frames. The network predicts v. Predicting epsilon, as ModelScope's
does, left an error of 4%, which hides motion: its energy is a hundredth of the noise.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, CLIPTokenizer

from motionexp.scripts.pretrain import clip_text
from motionexp.scripts.pretrain.denoising import single_frames, velocity_loss, without_some
from motionexp.scripts.pretrain.loop import muon_and_adamw, options, train
from motionexp.scripts.pretrain.vae import frame_latents
from motionexp.scripts.pretrain.videos import FOLDER, Latents, PretrainingVideos

LENGTHS = {8: 0.3, 12: 0.05, 16: 0.45, 20: 0.05, 24: 0.05, 28: 0.05, 32: 0.05}
"""Frames of a batch's videos, and the share of such batches."""
FEWER_VIDEOS = 1_000
"""Videos of each length other than 16."""
# ModelScope's betas end at a log-SNR of -5.4, at which this world's motion is still visible.
SCHEDULER = {
    "beta_start": 8.5e-4,
    "beta_end": 2.5e-2,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def build(caption_channels: int) -> UNet3DConditionModel:
    """Return an untrained network: 16 x 16 latents without attention, 8 x 8 and 4 x 4 with."""
    network = UNet3DConditionModel(
        sample_size=16,
        down_block_types=("DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"),
        block_out_channels=(32, 64, 80),
        layers_per_block=1,
        cross_attention_dim=caption_channels,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    # diffusers gives its temporal convolutions dropout that no configuration can switch off; it costs a third
    # of their time on a CPU, and too small a network does not need it.
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


class Denoiser(nn.Module):
    """Text encoder and network in one module, from token ids to v."""

    def __init__(self, text_encoder: CLIPTextModel, network: UNet3DConditionModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.network = network

    def forward(self, noisy: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """Return v (B, 4, F, 16, 16) for noisy latents, timesteps (B,) and token ids (B, L)."""
        captions = self.text_encoder(input_ids=ids).last_hidden_state
        with sdpa_kernel(SDPBackend.MATH):
            output: Tensor = self.network(noisy, t, captions, return_dict=False)[0]
        return output


class Batches:
    """What a step learns from: clean latents and token ids, by the step's index alone."""

    def __init__(self, tokenizer: CLIPTokenizer, videos: int, image_steps: int, frames: int) -> None:
        self.image_steps, self.frames = image_steps, frames
        vae = AutoencoderKL.from_pretrained(FOLDER / "vae").to(torch.bfloat16)
        rendered = {
            length: PretrainingVideos(videos if length == 16 else FEWER_VIDEOS, length) for length in LENGTHS
        }
        self.latents = {
            length: Latents(some, frame_latents(vae), FOLDER / "latents") for length, some in rendered.items()
        }
        self.sizes = {length: len(some) for length, some in rendered.items()}
        scenes = rendered[16].scenes()
        captions = [scene.caption for scene in scenes] + [scene.still_caption for scene in scenes]
        # (2N + 1, L), padded as the stock pipeline pads them.
        ids = tokenizer([*captions, ""], padding="max_length", return_tensors="pt").input_ids
        self.moving, self.still, self.empty = ids[: len(scenes)], ids[len(scenes) : -1], ids[-1]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return latents (B, 4, F, 16, 16) and token ids (B, L) of a step."""
        rng = np.random.default_rng([9, step])
        if step < self.image_steps or step % 4 == 0:
            rows = rng.integers(self.sizes[16], size=self.frames)
            clean, ids = single_frames(self.latents[16], rows, 16, rng), self.still[rows]
        else:
            length = int(rng.choice(list(LENGTHS), p=list(LENGTHS.values())))
            rows = rng.integers(self.sizes[length], size=2 * self.frames // length)
            clean, ids = self.latents[length].batch(rows), self.moving[rows]
        return clean, without_some(ids, self.empty, rng)


def main() -> None:
    """Train and save the network and its text encoder."""
    # A step has `--batch` single frames, or twice as many frames in videos.
    parser = options(__doc__, "unet3d", steps=9_000, batch=96, videos=10_000)
    parser.add_argument("--image-steps", type=int, default=2_500, help="steps on single frames alone")
    args = parser.parse_args()
    tokenizer = clip_text.build_tokenizer()
    tokenizer.save_pretrained(args.output / "tokenizer")
    torch.manual_seed(0)
    text_encoder = clip_text.build(tokenizer)
    model = Denoiser(text_encoder, build(text_encoder.config.hidden_size))
    batches = Batches(tokenizer, args.videos, args.image_steps, args.batch)
    # Single frames teach the appearance, which is set at small t; videos teach motion, at large t.
    loss = velocity_loss(model, batches, DDIMScheduler(**SCHEDULER).alphas_cumprod, video_power=0.5)
    # Muon for the network's linear layers, AdamW for the rest at half the rate.
    optimisers = muon_and_adamw(
        *(model, args.rate, lambda name: name.startswith("network.") and "time_emb" not in name),
        lr=args.rate / 2,
        weight_decay=0.01,
    )
    train(args, model, optimisers, loss)
    model.network.save_pretrained(args.output / "unet")
    model.text_encoder.save_pretrained(args.output / "text_encoder")


if __name__ == "__main__":
    main()
