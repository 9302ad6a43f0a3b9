"""The small classifier that reads a video's attributes, and may abstain."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from motionexp.config.json_file import read_object
from motionexp.errors import DAMAGE, InputError
from motionexp.metrics.base import Measurement, Predictions

# Side of the bundled world's frames; the linear layer of `pairs` fixes it.
SIZE = 64


@dataclass(frozen=True)
class ClassifierConfig:
    """What `config.json` beside the weights holds.

    Attributes:
        attributes: {attribute: its values}; the network adds a reject class after the last of each.
        width: channels of the first convolution.
        threshold: an answer less probable than this is an abstention too.
    """

    attributes: Mapping[str, tuple[str, ...]]
    width: int = 24
    threshold: float = 0.5


def _convolution(inputs: int, outputs: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU()
    )


class AttributeClassifier(nn.Module):
    """Appearance from single frames, motion from pairs of neighbouring frames; about 400,000 parameters.

    Each frame goes through a convolutional network whose features are pooled over space, then over time: the
    appearance. Each pair of neighbouring frames (both luminances and their difference) goes through another
    that keeps a 4 x 4 grid of places, and a convolution over time reads its sequence: the motion.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        # `looks`, `pairs`, `time` and `heads` name the stored weights.
        # (B F, 3, 64, 64) to (B F, 4 width, 8, 8): three strides of 2.
        self.looks = nn.Sequential(
            _convolution(3, width),
            _convolution(width, 2 * width),
            _convolution(2 * width, 2 * width, stride=1),
            _convolution(2 * width, 4 * width),
            _convolution(4 * width, 4 * width, stride=1),
        )
        # (B (F - 1), 3, 64, 64) to (B (F - 1), 4 width): four strides of 2 leave 4 x 4 places.
        self.pairs = nn.Sequential(
            _convolution(3, width),
            _convolution(width, width),
            _convolution(width, 2 * width),
            _convolution(2 * width, 2 * width),
            nn.Flatten(),
            nn.Linear(2 * width * (SIZE // 16) ** 2, 4 * width),
            nn.SiLU(),
        )
        # Kernels of 5, then 5 spread over 9: each output sees 13 pairs of frames.
        self.time = nn.Sequential(
            nn.Conv1d(4 * width, 4 * width, 5, padding=2),
            nn.SiLU(),
            nn.Conv1d(4 * width, 4 * width, 5, padding=4, dilation=2),
            nn.SiLU(),
        )
        # 8 width: the mean and the maximum of 4 width features; one more class is the reject class.
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(8 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, len(values) + 1)
                )
                for name, values in config.attributes.items()
            }
        )

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        """Map (B, F, 64, 64, 3) uint8, F >= 2, to {attribute: (B, values + 1) logits}, reject class last."""
        batch, frames = video.shape[:2]
        pixels = (video.permute(0, 1, 4, 2, 3).float() / 127.5 - 1).to(next(self.parameters()).dtype)
        # 1. Appearance: (B * F, C, places), pooled over places to (B * F, 2C), then over time to (B, 2C).
        looks = self.looks(pixels.flatten(0, 1)).flatten(2)
        pooled = torch.cat([looks.mean(2), looks.amax(2)], 1).unflatten(0, (batch, frames)).mean(1)
        # 2. Motion: (B, F - 1, 3, 64, 64) pairs; the difference is doubled, being small.
        grey = pixels.mean(2)
        before, after = grey[:, :-1], grey[:, 1:]
        pairs = torch.stack([before, after, 2 * (after - before)], 2)
        # (B, C, F - 1), as a convolution over time reads it.
        sequence = self.pairs(pairs.flatten(0, 1)).unflatten(0, (batch, frames - 1)).transpose(1, 2)
        moved = self.time(sequence)
        moving = torch.cat([moved.mean(2), moved.amax(2)], 1)
        # 3. A head an attribute; only motion sees the pairs.
        return {name: head(moving if name == "motion" else pooled) for name, head in self.heads.items()}

    @torch.inference_mode()
    def predict(self, frames: np.ndarray) -> Predictions:
        """Read the attributes of (F, 64, 64, 3) uint8 RGB frames; see `Predictions`."""
        if frames.shape[1:] != (SIZE, SIZE, 3) or frames.dtype != np.uint8 or len(frames) < 2:
            raise InputError(
                f"the attribute classifier reads two or more frames of {SIZE} x {SIZE} x 3 uint8, "
                f"not {frames.shape} {frames.dtype}"
            )
        device = next(self.parameters()).device
        # {attribute: (1, values + 1)}, for a batch of one video.
        logits = self(torch.from_numpy(np.ascontiguousarray(frames))[None].to(device))
        labels: dict[str, str | None] = {}
        confidence: dict[str, float] = {}
        for name, values in self.config.attributes.items():
            probability, index = logits[name][0].softmax(0).max(0)
            # The last class is the reject class.
            sure = probability >= self.config.threshold and index < len(values)
            labels[name] = values[int(index)] if sure else None
            confidence[name] = float(probability)
        return Predictions(labels, confidence)

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors` in half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        # Half precision: half of the size of the bundled file.
        weights = {
            name: tensor.detach().cpu().half().contiguous() for name, tensor in self.state_dict().items()
        }
        save_file(weights, folder / "model.safetensors")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "AttributeClassifier":
        """Read what `save` wrote, in float32 and eval mode. Raises `InputError` on anything else."""
        try:
            plain = read_object(folder / "config.json")
            values = {name: tuple(names) for name, names in plain.pop("attributes").items()}
            model = cls(ClassifierConfig(attributes=values, **plain))
            model.load_state_dict(load_file(folder / "model.safetensors"))
        except (*DAMAGE, SafetensorError) as error:
            raise InputError(
                f"classifier {folder}: not a config.json and a model.safetensors that fit each other: {error}"
            ) from error
        return model.to(device).eval()


def agreement(label: str | None, value: str) -> Measurement:
    """Return 1 where the classifier reads `value` and else 0; an abstention (None) is a 0 with a reason."""
    return Measurement(float(label == value), "the classifier abstained" if label is None else "")
