"""A LoRA of which fewer ranks act at some timesteps: beside plain LoRAs that hold those ranks alone."""

import pytest
import torch

from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.lora import LoRA
from motionexp.methods.step import Step
from tests.support.training_runs import attach, change, copied

# round(1 + 3 u) by hand, u = 1 - t / 1000 where the rank falls with t and t / 1000 where it rises.
RANKS = {"falling": {0: 4, 200: 3, 700: 2, 1000: 1}, "rising": {0: 1, 300: 2, 600: 3, 1000: 4}}


def truncated(tensors, rank):
    """The tensors of a LoRA whose ranks above `rank` are zero in A."""
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    for name, tensor in kept.items():
        if "lora_A" in name:
            tensor[rank:] = 0
    return kept


@pytest.mark.parametrize("direction", RANKS)
def test_at_a_timestep_it_is_the_lora_of_its_first_ranks(direction, backbone, predict):
    method = attach("t_lora", backbone, Window(0), rank_over_t=direction)
    change(method)
    tensors, outputs = copied(method), {}
    for t in RANKS[direction]:
        method.set_active(t)
        outputs[t] = predict(t)
    method.remove()
    plain = LoRA(backbone, Window(0))
    plain.switch(True)
    for t, rank in RANKS[direction].items():
        plain.load(truncated(tensors, rank))
        assert torch.equal(predict(t), outputs[t]), t
    assert not torch.equal(outputs[0], outputs[1000])


def test_every_row_of_a_batch_has_the_ranks_of_its_own_timestep(backbone, examples):
    method = attach("t_lora", backbone, Window(0))
    change(method)
    method.switch(True)
    rows = []
    noise = torch.randn(examples[0].latents.shape, generator=torch.Generator().manual_seed(3))
    for example, t in zip(examples, (100, 900), strict=True):
        rows.append((example.latents, noise, torch.tensor([t]), example.conditioning))
    apart = [method.loss(Step.noised(backbone.schedule, *row)) for row in rows]
    latents, noises, t = (torch.cat(parts) for parts in list(zip(*rows, strict=True))[:3])
    both = Conditioning.cat([row[3] for row in rows])
    torch.testing.assert_close(
        method.loss(Step.noised(backbone.schedule, latents, noises, t, both)), sum(apart) / 2
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"least_rank": 0}, "method.least_rank=0"),
        ({"least_rank": 5}, "rank=4"),
        ({"rank_over_t": "up"}, "rank_over_t=up"),
    ],
)
def test_what_is_out_of_range_is_refused(settings, named, backbone):
    with pytest.raises(InputError, match=named):
        attach("t_lora", backbone, Window(0), **settings)
    attach("lora", backbone, Window(0))  # nothing is left attached
