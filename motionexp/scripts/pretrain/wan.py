"""Train the small Wan: ``python -m motionexp.scripts.pretrain.wan``.

Flow matching, on the VAE and the text encoder of the bundled ``tiny_latte``, so that the two differ in the
network and the noise schedule alone. First come single frames alone, then videos and some single frames.
Stopped, the same command goes on. ``pretrain.bundle`` will then assemble ``bundled/tiny_wan``.
"""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL, WanTransformer3DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from motionexp.config.schema import BUNDLED
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.scripts.pretrain.denoising import single_frames, stratified, without_some
from motionexp.scripts.pretrain.loop import in_bf16, muon_and_adamw, options, train
from motionexp.scripts.pretrain.text_encoder import embedded
from motionexp.scripts.pretrain.vae import frame_latents
from motionexp.scripts.pretrain.videos import FOLDER, Latents, PretrainingVideos

BASE = BUNDLED / "tiny_latte"
FRAMES = 16
SHIFT = 3.0
"""Of training and sampling: without it a tenth of the timesteps sets all that is set before colour."""
# As Wan's own folders have it. Its steps are UniPC's, its sigmas those of flow matching.
SCHEDULER = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": SHIFT}


def build(caption_channels: int) -> WanTransformer3DModel:
    """Return an untrained network: 6 blocks of width 160, 16 tokens a frame."""
    return WanTransformer3DModel(
        patch_size=(1, 4, 4),
        num_attention_heads=5,
        attention_head_dim=32,
        in_channels=4,
        out_channels=4,
        text_dim=caption_channels,
        freq_dim=128,
        ffn_dim=640,
        num_layers=6,
        rope_max_seq_len=64,
    )


class Denoiser(nn.Module):
    """The network, with attention in plain matrix products: faster in bf16 on a CPU."""

    def __init__(self, network: WanTransformer3DModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, noisy: Tensor, t: Tensor, embeds: Tensor) -> Tensor:
        """Return the velocity (B, 4, F, 16, 16) for noisy latents, timesteps (B,) and captions (B, L, D)."""
        with sdpa_kernel(SDPBackend.MATH):
            output: Tensor = self.network(noisy, t, embeds.to(noisy.dtype), return_dict=False)[0]
        return output


class Batches:
    """What a step learns from: clean latents and embedded captions, by the step's index alone."""

    def __init__(self, videos: PretrainingVideos, image_steps: int, batch: int) -> None:
        self.image_steps, self.batch, self.count = image_steps, batch, len(videos)
        vae = AutoencoderKL.from_pretrained(BASE / "vae", torch_dtype=torch.float32).to(torch.bfloat16)
        self.latents = Latents(videos, frame_latents(vae), FOLDER / "latents-of-bundled-chroma-1")
        scenes = videos.scenes()
        captions = [scene.caption for scene in scenes] + [scene.still_caption for scene in scenes]
        # (2N + 1, L, D): zeros beyond a caption's own tokens, as the stock pipeline has them.
        embeds, mask = embedded([*captions, ""], BASE, mask_padding=True)
        embeds *= mask[..., None]
        self.moving, self.still, self.empty = embeds[: self.count], embeds[self.count : -1], embeds[-1]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return latents (B, 4, F, 16, 16) and captions (B, L, D) of a step."""
        rng = np.random.default_rng([17, step])
        if step < self.image_steps or step % 4 == 0:
            # Six single frames cost a third of a video: the appearance is learnt from them first.
            rows = rng.integers(self.count, size=6 * self.batch)
            clean, captions = single_frames(self.latents, rows, FRAMES, rng), self.still[rows]
        else:
            rows = rng.integers(self.count, size=self.batch)
            clean, captions = self.latents.batch(rows), self.moving[rows]
        return clean, without_some(captions, self.empty, rng)


def flow_loss(
    model: nn.Module, batches: Callable[[int], tuple[Tensor, Tensor]], shift: float = SHIFT
) -> Callable[[int], Tensor]:
    """Return the loss of a step: the squared error of the velocity, one t in each of B slices of 0..1000.

    Args:
        model: from noisy latents, timesteps and captions to velocities.
        batches: clean latents and captions of a step.
        shift: of the timesteps' density towards noise, as `FlowSchedule.shift` shifts those of sampling.
    """
    schedule = FlowSchedule()

    def loss(step: int) -> Tensor:
        clean, captions = batches(step)
        generator = torch.Generator().manual_seed(step)
        shares = stratified(len(clean), generator)
        t = 1000 * shift * shares / (1 + (shift - 1) * shares)
        noise = torch.randn(clean.shape, generator=generator)
        noisy, velocity = schedule.add_noise(clean, noise, t), schedule.target(clean, noise, t)
        return (in_bf16(model, noisy.bfloat16(), t, captions).float() - velocity).square().mean()

    return loss


def main() -> None:
    """Train and save the network."""
    # A step has `--batch` videos, or six times as many single frames.
    parser = options(__doc__, "wan", steps=7_600, videos=10_000)
    parser.add_argument("--image-steps", type=int, default=2_000, help="steps on single frames alone")
    args = parser.parse_args()
    torch.manual_seed(0)
    batches = Batches(PretrainingVideos(args.videos), args.image_steps, args.batch)
    model = Denoiser(build(batches.empty.shape[-1]))
    # Muon for the blocks' matrices, AdamW for the rest.
    optimisers = muon_and_adamw(model, args.rate, lambda name: "blocks" in name)
    train(args, model, optimisers, flow_loss(model, batches))
    model.network.save_pretrained(args.output / "transformer")


if __name__ == "__main__":
    main()
