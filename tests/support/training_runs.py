"""A short training, and how to interrupt it."""

from motionexp.diffusion.schedule import Window
from motionexp.methods.base import OptimizerSettings
from motionexp.methods.full_rank import FullRank
from motionexp.methods.lora import LoRA
from motionexp.methods.training import TrainingSettings, fit

METHODS = [LoRA, FullRank]
SETTINGS = TrainingSettings(steps=8, batch_size=2, seed=5, optimizer=OptimizerSettings(learning_rate=1e-2))


def run(backbone, examples, folder, method_type=LoRA, settings=SETTINGS, low=700, **kwargs):
    """Fit a new method and remove it; returns the result and the tuned tensors."""
    method = method_type(backbone, Window(low))
    try:
        result = fit(backbone, method, examples, settings, folder, progress=False, **kwargs)
        return result, {name: tensor.clone() for name, tensor in method.state().items()}
    finally:
        method.remove()


def interrupt_at(step):
    def on_preview(done):
        if done == step:
            raise KeyboardInterrupt

    return on_preview
