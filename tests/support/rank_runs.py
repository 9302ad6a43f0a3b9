"""What two ranks do in the tests: functions of a module, as the new processes import them."""

import os
import shutil
import signal
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from motionexp.jobs.waiting import loading_libraries

with loading_libraries():
    import torch
    from torch.nn import functional as F

    from motionexp.backbones import parts
    from motionexp.backbones.latte import LatteBackbone
    from motionexp.backbones.pipeline import PipelineBackbone
    from motionexp.config import metrics
    from motionexp.config.schema import JobConfig
    from motionexp.data.base import Edit
    from motionexp.diffusion import ranks
    from motionexp.diffusion.backbone import Backbone
    from motionexp.diffusion.sampling import SamplerSettings
    from motionexp.diffusion.schedule import Window
    from motionexp.errors import Stopped
    from motionexp.jobs import run
    from motionexp.jobs.evaluation import SampleSettings, sample
    from motionexp.jobs.ranks import joined
    from motionexp.methods import training
    from motionexp.methods.base import OptimizerSettings, TrainingSettings
    from motionexp.methods.lora import LoRA
    from motionexp.methods.lora_stack import LoRAStack
    from motionexp.methods.step import Step
    from motionexp.methods.training import Example, fit
    from tests.support.squares import SQUARE_METRICS

TRAINING = TrainingSettings(
    steps=10, seed=5, optimizer=OptimizerSettings(learning_rate=1e-2), checkpoint_every=0
)
CAPTIONS = ["a cat runs", "a dog is running to the left", "a dog runs"]
Result = dict[str, Any]


class DoubleLoRA(LoRA):
    """A LoRA in float64, so that only the order of sums makes a difference."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for layer in self.layers.values():
            layer.double()

    def loss(self, step: Step) -> torch.Tensor:
        output = self.backbone.predict(step.noisy.double(), step.t, step.conditioning)
        return F.mse_loss(output, step.target.double())


def loaded(weights: Path, dtype: torch.dtype = torch.float32) -> Backbone:
    return LatteBackbone.from_pretrained(weights, name="tiny", dtype=dtype)


def examples_of(backbone: Backbone) -> list[Example]:
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    latents = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    return [Example(latents[i : i + 1], backbone.embed([CAPTIONS[i]]), f"video {i}") for i in range(2)]


def trained(
    backbone: Backbone, examples: list[Example], settings: TrainingSettings, method: Any = LoRA, **about: Any
) -> Result:
    """The losses, the tensors and the first step's gradients of a training."""
    gradients: list[torch.Tensor] = []
    step = torch.optim.AdamW.step

    def recorded(self: Any, closure: Any = None) -> Any:
        if not gradients:
            gradients.extend(
                parameter.grad.clone() for group in self.param_groups for parameter in group["params"]
            )
        return step(self, closure)

    tuning = method(backbone, Window(700), **about.pop("arguments", {}))
    torch.optim.AdamW.step = recorded  # type: ignore[method-assign,assignment]
    try:
        result = fit(backbone, tuning, examples, settings, progress=False, **about)
        tensors = {name: tensor.clone() for name, tensor in tuning.state().items()}
        return {
            "losses": result.losses,
            "tensors": tensors,
            "gradients": gradients,
            "resumed_from": result.resumed_from,
        }
    finally:
        torch.optim.AdamW.step = step  # type: ignore[method-assign]
        tuning.remove()


def in_double(weights: Path, settings: TrainingSettings) -> Result:
    backbone = loaded(weights, torch.float64)
    return trained(backbone, examples_of(backbone), settings, DoubleLoRA)


def stacked(backbone: Backbone, examples: list[Example], settings: TrainingSettings) -> Result:
    return trained(backbone, examples, settings, LoRAStack, arguments={"starts": [3, 4]})


def sampled(backbone: Backbone) -> list[Any]:
    """Five videos in batches of two, with an adapter that changes them: the last round has one batch."""
    method = LoRA(backbone, Window(300))
    stream = torch.Generator().manual_seed(0)
    for tensor in method.state().values():
        tensor.add_(0.1 * torch.randn(tensor.shape, generator=stream))
    try:
        edits = [Edit("caption", caption) for caption in (*CAPTIONS, *CAPTIONS[:2])]
        settings = SampleSettings(SamplerSettings(steps=3, guidance_scale=2.0, eta=0.5))
        indices = [0, 0, 0, 1, 1]
        samples = sample(backbone, method, edits, settings, indices=indices, at_once=2)
        return [video.frames for video in samples]
    finally:
        method.remove()


def _stopped_and_resumed(backbone: Backbone, examples: list[Example], folder: Path) -> Result:
    """Rank 1 gets a signal in a preview after step 3; then all ranks train on."""

    def press(done: int) -> None:
        if done == 3 and not ranks.is_first():
            os.kill(os.getpid(), signal.SIGTERM)

    settings = replace(TRAINING, preview_every=1)
    stopped = ""
    try:
        trained(backbone, examples, settings, folder=folder, on_preview=press)
    except Stopped as stop:
        stopped = stop.signum.name
        if ranks.is_first():
            shutil.copytree(folder, folder.with_name("stopped"))
    return trained(backbone, examples, TRAINING, folder=folder) | {"stopped": stopped}


def _sharded(weights: Path, folder: Path) -> Result:
    """Trainings and samples of a network of which each rank holds a half, and what the trainings ran on."""
    backbone = loaded(weights)
    examples = examples_of(backbone)
    backbone.sharded = True
    with patch.object(training, "_run", wraps=training._run) as run:
        result = trained(backbone, examples, TRAINING)
    trainer = run.call_args.args[0]
    parts = list(backbone.network.parameters())
    return result | {
        "strategy": type(trainer.strategy),
        "is_mesh_shared": all(part.device_mesh is trainer.lightning_module.device_mesh for part in parts),
        "held": sum(part.to_local().nbytes for part in parts),
        "sampled": sampled(backbone),
        "resumed": _stopped_and_resumed(backbone, examples, folder / "resumed"),
    }


def _refuse(part: str) -> Any:
    raise AssertionError(f"{part} is loaded on rank {ranks.number()}")


def _job(cfg: JobConfig, number: int) -> list[tuple[int, int]]:
    """The whole job. Only rank 0 may load a text encoder, or a VAE (its encoder comes with the decoder).

    Returns:
        For each time that this rank shards a network, how many text encoders it has loaded until then, and
        how many of them are still in memory.
    """
    load, shard = PipelineBackbone._load, parts.shard
    encoders: list[weakref.ref[Any]] = []
    shardings: list[tuple[int, int]] = []

    def loading(backbone: Any, part: str) -> Any:
        if not part.startswith("text_encoder"):
            return load(backbone, part)
        if number > 0:
            _refuse(part)
        encoder = load(backbone, part)
        encoders.append(weakref.ref(encoder))
        return encoder

    def sharding(network: Any, device: torch.device) -> Any:
        shardings.append((len(encoders), sum(encoder() is not None for encoder in encoders)))
        return shard(network, device)

    PipelineBackbone._load = loading  # type: ignore[method-assign]
    parts.shard = sharding
    try:
        run.make(cfg, {})
    finally:
        PipelineBackbone._load, parts.shard = load, shard  # type: ignore[method-assign]
    return shardings


def everything(cfg: JobConfig) -> Result:
    """All that the tests look at, so that torch is imported once in each rank."""
    metrics.METRICS = metrics.METRICS | SQUARE_METRICS  # type: ignore[misc]
    torch.set_num_threads(1)
    weights, folder = Path(cfg.model.path), Path(cfg.output)
    with joined(cfg):
        backbone = loaded(weights)
        examples = examples_of(backbone)
        results = {
            "double": in_double(weights, TRAINING),
            "accumulated": in_double(weights, replace(TRAINING, accumulate=2, steps=3)),
            "single": trained(backbone, examples, TRAINING),
            "stack": stacked(backbone, examples, replace(TRAINING, batch_size=2, steps=3)),
            "resumed": _stopped_and_resumed(backbone, examples, folder / "resumed"),
            "sampled": sampled(backbone),
            "sharded": _sharded(weights, folder / "of parts"),
        }
        number = ranks.number()
    _job(cfg, number)
    trainer = replace(cfg.trainer, strategy="fsdp")
    shardings = _job(replace(cfg, trainer=trainer, output=str(folder / "sharded")), number)
    return results | {"shardings": shardings}
