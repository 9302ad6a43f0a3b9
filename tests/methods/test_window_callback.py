"""A callback on a pipeline that is called again; test_stock_pipelines compares samples."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from motionexp.diffusion.schedule import Window
from motionexp.methods.window_callback import window_callback

STEPS = (900.0, 700.0, 500.0, 300.0)


class Network(nn.Module):
    """A network with one layer, which notes the scale of its LoRA at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.scales: list[float] = []

    def forward(self, x: Tensor, timestep: float) -> Tensor:
        assert isinstance(self.layer, LoraLayer)
        self.scales.append(self.layer.scaling["motion"])
        return self.layer(x)


class Pipeline:
    """A pipeline with a LoRA of the scale 2."""

    def __init__(self) -> None:
        self.transformer = Network()
        config = LoraConfig(r=1, lora_alpha=2.0, target_modules=["layer"])
        inject_adapter_in_model(config, self.transformer, adapter_name="motion")
        self.scheduler = SimpleNamespace(timesteps=torch.zeros(0), config={})

    def __call__(self, callback_on_step_end: object, steps: Sequence[float] = STEPS) -> list[float]:
        """The scales of the LoRA in the steps of a video."""
        self.transformer.scales.clear()
        self.scheduler.timesteps = torch.tensor(steps)
        for number, t in enumerate(steps):
            self.transformer(torch.zeros(1, 2), timestep=t)
            callback_on_step_end(self, number, torch.tensor(t), {})  # type: ignore[operator]
        return [*self.transformer.scales]


def test_a_new_callback_in_each_call_takes_the_place_of_the_former() -> None:
    pipeline = Pipeline()
    inner, soft = Window(400, 800), Window(300, 1000, ((300.0, 0.0), (900.0, 1.0)))
    for _ in range(2):
        assert pipeline(window_callback(inner, pipeline)) == [0, 2, 2, 0]
    # A video that was broken off in the window leaves nothing behind either.
    pipeline(window_callback(soft, pipeline), STEPS[:3])
    assert pipeline(window_callback(inner, pipeline)) == [0, 2, 2, 0]
    again = window_callback(Window(600), pipeline)
    assert pipeline(again) == pipeline(again) == [2, 2, 0, 0]
