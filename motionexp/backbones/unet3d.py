"""ModelScope's text-to-video U-Net (Wang et al. 2023, arXiv 2308.06571) in diffusers' layout.

A Stable Diffusion U-Net whose every convolution and attention within a frame is followed by one along time.
The text is laid out as `diffusers.TextToVideoSDPipeline` does it: padded to the tokenizer's full length, the
text encoder's last hidden state, no mask, and an empty caption for the unconditional branch.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from motionexp.backbones import image_vae
from motionexp.backbones.base import Backbone, Conditioning, ProjectionKind
from motionexp.backbones.checkpoint import (
    check_folder,
    find_folder,
    load_part,
    name_of,
    read_json,
    weights_hash,
)
from motionexp.backbones.precision import attention_kernels, plain_attention
from motionexp.backbones.text import caption_problems, load_tokenizer
from motionexp.config import InputError
from motionexp.schedule import NoiseSchedule

CLASSES = {
    "_class_name": "TextToVideoSDPipeline",
    "unet": "UNet3DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
}
ATTENTIONS: dict[ProjectionKind, tuple[type[torch.nn.Module], tuple[str, ...]]] = {
    "motion": (TransformerTemporalModel, ("attn1", "attn2")),
    "spatial": (Transformer2DModel, ("attn1",)),
    "cross": (Transformer2DModel, ("attn2",)),
}
LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}


def attention_projections(network: UNet3DConditionModel, kind: ProjectionKind) -> dict[str, list[str]]:
    """See `Backbone.projections` and `UNet3DBackbone`. The network may be on `meta`."""
    model, attentions = ATTENTIONS[kind]
    modules = [
        f"{name}.transformer_blocks.{block}.{attention}"
        for name, module in network.named_modules()
        if isinstance(module, model)
        for block, _ in module.get_submodule("transformer_blocks").named_children()
        for attention in attentions
    ]
    return {letter: [f"{module}.{layer}" for module in modules] for letter, layer in LAYERS.items()}


class UNet3DBackbone(Backbone):
    """ModelScope's U-Net, for any number of frames. `frames` is how many are made, and may be set.

    `motion` attention is all attention of the temporal transformers: both self-attentions (`attn1`, `attn2`)
    of each, `transformer_in` at the network's entrance included, without the temporal convolutions, which mix
    frames too. That is 16 attentions in 8 transformers in the small bundled network, where a LoRA of rank 4
    on v and o trains 18,432 numbers, and 34 in 17 with 415,744 numbers in ModelScope's, if that has the
    defaults of `UNet3DConditionModel` (not compared with the hub). Within frames there are 7 (there 16) each
    of `spatial` and `cross` attention.

    On a single frame the temporal layers run as they are: attention over one token gives its own value, and
    the convolutions see zeros before and after. An adapter in the motion attention changes single frames too.

    Dropout is off, in tuning too: diffusers gives it to the temporal convolutions, without a setting.

    `from_pretrained` leaves the VAE in fp32: it runs once a video, and rounding shows in its pictures.
    """

    component = "unet"

    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")

    def __init__(
        self,
        *,
        network: UNet3DConditionModel,
        vae: AutoencoderKL,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: CLIPTextModel,
        schedule: NoiseSchedule,
        name: str,
        fps: float = 8.0,
        source: str = "",
        revision: str | None = None,
        weights_hash: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        self.device, self.dtype = torch.device(device), network.dtype
        self.network = network.to(self.device).requires_grad_(False).eval()
        self.vae = vae.to(self.device).requires_grad_(False).eval()
        self.text_encoder: CLIPTextModel | None = text_encoder.to(self.device).requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.schedule = schedule
        self.name, self.source, self.revision, self.weights_hash = name, source, revision, weights_hash
        self.fps = fps
        self._config = network.config
        self.frames = 16
        self.max_caption_tokens = tokenizer.model_max_length
        self._vae_factor = image_vae.downsampling(vae)
        self.height = self.width = network.config.sample_size * self._vae_factor

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
        fps: float = 8.0,
        local_files_only: bool = False,
    ) -> "UNet3DBackbone":
        """Load the folder of a TextToVideoSDPipeline.

        Args:
            path: `bundled:NAME`, a folder, or a hub id, which is downloaded once.
            revision: the hub repository's commit, branch or tag.
            device: where to compute.
            dtype: of the network and the text encoder.
            name: in rows and paths; the path's last part unless given.
            fps: frames a second of the videos that it makes.
            local_files_only: never ask the hub.

        Raises:
            InputError: no such folder, or a file of it is missing, damaged or of another model.
        """
        folder = find_folder(path, revision, local_files_only)
        check_folder(folder, CLASSES, weighted=("unet", "vae", "text_encoder"))
        return cls(
            network=load_part(UNet3DConditionModel, folder / "unet", dtype),
            vae=load_part(AutoencoderKL, folder / "vae", torch.float32),
            text_encoder=load_part(CLIPTextModel, folder / "text_encoder", dtype),
            tokenizer=load_tokenizer(folder),
            schedule=NoiseSchedule.from_config(read_json(folder / "scheduler" / "scheduler_config.json")),
            name=name or name_of(path),
            fps=fps,
            source=str(path),
            revision=revision,
            weights_hash=weights_hash(folder, cls.parts),
            device=device,
        )

    @classmethod
    def caption_problems(
        cls,
        path: str | Path,
        captions: Sequence[str],
        *,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> list[str]:
        """See `Backbone.caption_problems`."""
        return _caption_problems(load_tokenizer(find_folder(path, revision, local_files_only)), captions)

    def encode(self, frames: UInt8[Tensor, "b f h w 3"]) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.encode`."""
        self.latent_shape(*frames.shape[1:4])
        return image_vae.encode(self.vae, frames)

    def decode(self, latents: Float[Tensor, "b c f y x"]) -> UInt8[Tensor, "b f h w 3"]:
        """See `Backbone.decode`."""
        return image_vae.decode(self.vae, latents)

    @torch.no_grad()
    def embed(self, captions: Sequence[str]) -> Conditioning:
        """See `Backbone.embed`. All columns are heard, the padding's too: there is no mask."""
        if self.text_encoder is None:
            raise RuntimeError(
                "release_text_encoder() was called: embed before it, or load the backbone again"
            )
        problems = self.check_captions(captions)
        if problems:
            raise InputError("; ".join(problems))
        tokens = self.tokenizer(
            list(captions), padding="max_length", max_length=self.max_caption_tokens, return_tensors="pt"
        )
        return Conditioning(self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state)

    def guidance_pair(
        self, conditioning: Conditioning, negative: Conditioning
    ) -> tuple[Conditioning, Conditioning]:
        """See `Backbone.guidance_pair`: all captions are of one length, and nothing is laid out anew."""
        return (negative.repeat(len(conditioning)) if len(negative) == 1 else negative), conditioning

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        if conditioning.mask is not None:
            raise ValueError("this network hears every column of a caption: a mask would do nothing")
        with attention_kernels(self.device, self.dtype, self._longest_sequence(*x_t.shape[2:])):
            output = self.network(
                x_t.to(self.device, self.dtype),
                torch.as_tensor(t, device=self.device).expand(len(x_t)),
                conditioning.embeds.to(self.device, self.dtype),
                return_dict=False,
            )[0]
        return output.to(x_t.dtype)

    def _longest_sequence(self, frames: int, height: int, width: int) -> int:
        """The most tokens of one attention: all frames of a position, or all positions of a frame."""
        return max(frames, self._first_attention(height, width)[1])

    def _first_attention(self, height: int, width: int) -> tuple[int, int]:
        """How often latents are halved before attention within a frame, and its positions then."""
        level: int = self._config.down_block_types.index("CrossAttnDownBlock3D")
        return level, math.ceil(height / 2**level) * math.ceil(width / 2**level)

    def projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        """See `Backbone.projections` and `attention_projections`."""
        return attention_projections(self.network, kind)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """See `Backbone.latent_shape`: any number of frames from 1, sides in whole latents."""
        if frames < 1:
            raise InputError(f"frames={frames}: {self.name} makes videos of 1 frame or more")
        multiple = self._vae_factor
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise InputError(f"size {height} x {width}: {self.name} needs multiples of {multiple} pixels")
        return self._config.in_channels, frames, height // multiple, width // multiple

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`: an upper estimate."""
        config, (_, frames, height, width) = self._config, shape
        entrance = 8 * config.attention_head_dim  # the width of `transformer_in`
        positions = frames * height * width
        # The factors are measured peaks, of `transformer_in` and of the last block on the way up.
        held = positions * max(23 * entrance, 28 * config.block_out_channels[0]) * self.dtype.itemsize
        if not plain_attention(self.device, self.dtype, self._longest_sequence(frames, height, width)):
            return held
        level, tokens = self._first_attention(height, width)
        heads = config.block_out_channels[level] // config.attention_head_dim
        spatial = frames * tokens * heads * max(tokens, self.max_caption_tokens)
        return held + 8 * max(spatial, positions * 8 * frames)

    def check_captions(self, captions: Sequence[str]) -> list[str]:
        """See `Backbone.check_captions`."""
        return _caption_problems(self.tokenizer, captions)

    def release_text_encoder(self) -> None:
        """See `Backbone.release_text_encoder`."""
        self.text_encoder = None

    def release_vae_encoder(self) -> None:
        """See `Backbone.release_vae_encoder`."""
        image_vae.release_encoder(self.vae)


def _caption_problems(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> list[str]:
    # The tokenizer writes small letters by itself.
    return caption_problems(tokenizer, [caption.lower() for caption in captions], tokenizer.model_max_length)
