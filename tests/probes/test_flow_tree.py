"""The tree on flow matching, whose steps are not evenly spaced in t."""

import pytest
import torch
from torch import Tensor

from motionexp.backbones.wan import WanBackbone
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.inversion import invert
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.errors import InputError
from motionexp.probes.interventions import partial_guidance, tampering
from motionexp.probes.timesteps import EDGES, Pair
from motionexp.probes.tree import Trajectory, run_tree, step_blocks, step_counts
from tests.support.tiny_flow import save_tiny_wan

OWN, NEW, NEGATIVE = "a cat", "A red ball rolls 7", "blurred 3 times"
SCALE, STEPS = 3.0, 30


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> WanBackbone:
    return WanBackbone.from_pretrained(save_tiny_wan(tmp_path_factory.mktemp("probed") / "wan"), name="tiny")


@pytest.fixture(scope="module")
def inverted(backbone: WanBackbone) -> dict[float, Tensor]:
    latents = torch.randn(1, 4, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    return invert(backbone, latents, backbone.embed([OWN]), None, SamplerSettings(STEPS, 1.0))


@torch.no_grad()
def alone(backbone: WanBackbone, pair: Pair, start: int, x_t: Tensor, *, guided_outside: bool) -> Tensor:
    """One pair's trajectory, one video and one evaluation at a time: the new caption for end < t <= start."""
    for t, t_prev in backbone.schedule.step_pairs(STEPS):
        if t > start:
            continue
        inside = pair[1] < t <= pair[0]
        caption = NEW if inside or not guided_outside else OWN
        output = backbone.predict(x_t, t, backbone.embed([NEGATIVE]))
        if inside or guided_outside:
            output = output + SCALE * (backbone.predict(x_t, t, backbone.embed([caption])) - output)
        x_t = x_t + (t_prev - t) / 1000 * output
    return x_t[0]


@pytest.mark.parametrize("probe", ["tampering", "partial_guidance"])
def test_trajectories_are_as_if_they_ran_alone(
    backbone: WanBackbone, inverted: dict[float, Tensor], probe: str
) -> None:
    every = tampering(OWN, NEW, SCALE) if probe == "tampering" else partial_guidance(NEW, SCALE)
    chosen: dict[Pair, Trajectory] = {pair: every[pair] for pair in [(700, 300), (100, 0)]}
    blocks = step_blocks(backbone.schedule, STEPS)
    starts = {edge: inverted[block[0][0]] for edge, block in zip(EDGES[1:], blocks, strict=True)}
    got = run_tree(
        backbone,
        list(chosen.values()),
        starts,
        STEPS,
        embed=lambda caption: backbone.embed([caption]),
        negative=backbone.embed([NEGATIVE]),
        rows=16,
    )
    for (pair, trajectory), latents in zip(chosen.items(), got, strict=True):
        start = trajectory.start
        expected = alone(backbone, pair, start, starts[start], guided_outside=probe == "tampering")
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)


def test_guidance_may_vary_with_t(backbone: WanBackbone, inverted: dict[float, Tensor]) -> None:
    scales = ((0.0, 1.0), (450.0, 2.0), (800.0, 5.0))
    start = inverted[backbone.schedule.timesteps(STEPS)[0]]
    captions = backbone.embed([NEW]), backbone.embed([NEGATIVE])
    expected = sample_latents(backbone, *captions, start, SamplerSettings(STEPS, scales))
    (latents,) = run_tree(
        backbone,
        [tampering(OWN, NEW, scales)[1000, 0]],
        {1000: start},
        STEPS,
        embed=lambda caption: backbone.embed([caption]),
        negative=captions[1],
        rows=2,
    )
    torch.testing.assert_close(latents, expected[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="guidance_scale="):
        tampering(OWN, NEW, ((0.0, 0.5),))


def test_blocks_hold_unequal_numbers_of_steps_and_all_of_them(backbone: WanBackbone) -> None:
    blocks = step_blocks(backbone.schedule, STEPS)
    pairs = [pair for block in reversed(blocks) for pair in block]
    assert pairs == backbone.schedule.step_pairs(STEPS)
    for low, block in zip(EDGES, blocks, strict=False):
        assert all(low < t <= low + 100 for t, _ in block)
    counts = step_counts(backbone.schedule, STEPS)
    assert counts[-1] > counts[0] > 0
    # Pure noise belongs to the highest block, and LTX's last step, from t = 100, to the lowest.
    assert step_counts(FlowSchedule(), 10) == [1] * 10
    assert step_counts(FlowSchedule(2.0, "even", terminal=0.1), 50)[0] == 1


def test_an_empty_block_names_the_number_of_steps_that_would_do() -> None:
    with pytest.raises(InputError, match=r"probe_steps=10: .*shift 7.* 0 to 100, .* probe_steps=70"):
        step_blocks(FlowSchedule(7.0, "even"), 10)
    assert all(step_counts(FlowSchedule(7.0, "even"), 70))
    with pytest.raises(InputError, match="steps=50: "):
        step_blocks(FlowSchedule(1.0, "even", terminal=0.3), 50)
