"""DiTFlow's formulas, word for word, and what it optimises."""

import math

import pytest
import torch

from motionexp.backbones.cogvideox import CogVideoXBackbone
from motionexp.diffusion import correspondence
from motionexp.diffusion.correspondence import attention_displacements
from motionexp.diffusion.hooks import Attended
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from tests.support.guidance_runs import SAMPLER, guidance, sampled
from tests.support.tiny_cogvideox import save_tiny_cogvideox

GRID = (2, 3)


@pytest.fixture(scope="module")
def dit(tmp_path_factory):
    return CogVideoXBackbone.from_pretrained(
        save_tiny_cogvideox(tmp_path_factory.mktemp("dit") / "m", rotary=True), name="tiny"
    )


def random_heads():
    stream = torch.Generator().manual_seed(3)
    shape = (1, 2, 3, 6, 4)  # (B, heads, F, P, D)
    return tuple(2 * torch.randn(shape, generator=stream, dtype=torch.float64) for _ in range(2))


def literal_flow(query, key, temperature, soft, mean_of="queries_and_keys"):
    """Eqs. 3 to 7, one pair of tokens after the other: {(i, j, token): (rows, columns)}."""
    heads, frames, tokens, width = query.shape[1:]
    flow = {}
    for i in range(frames):
        for j in range(frames):
            for p in range(tokens):
                scores = []
                for q in range(tokens):
                    if mean_of == "queries_and_keys":
                        score = query[0, :, i, p].mean(0) @ key[0, :, j, q].mean(0) / math.sqrt(width)
                    else:
                        of_heads = [
                            query[0, h, i, p] @ key[0, h, j, q] / math.sqrt(width) for h in range(heads)
                        ]
                        score = sum(of_heads) / heads
                    scores.append(temperature * score)
                weights = torch.stack(scores).softmax(0)
                if not soft:
                    weights = torch.eye(tokens, dtype=query.dtype)[weights.argmax()]
                moved = [0, 0]
                for q in range(tokens):
                    moved[0] = moved[0] + weights[q] * (q // GRID[1] - p // GRID[1])
                    moved[1] = moved[1] + weights[q] * (q % GRID[1] - p % GRID[1])
                flow[i, j, p] = moved
    return flow


@pytest.mark.parametrize("mean_of", ["queries_and_keys", "scores"])
@pytest.mark.parametrize("at_once", [1, 2, None])
def test_displacements_are_those_of_the_equations_with_their_gradients(mean_of, at_once):
    leaves = [tensor.requires_grad_() for tensor in random_heads()]
    literal = literal_flow(*leaves, 2.0, True, mean_of)
    numbers = torch.stack([torch.stack(literal[key]) for key in sorted(literal)])
    expected = torch.autograd.grad(numbers.square().sum(), leaves)
    options = {"temperature": 2.0, "mean_of": mean_of, "frames_at_once": at_once}
    soft = attention_displacements(*leaves, GRID, soft=True, **options)
    torch.testing.assert_close(soft[0].reshape(-1, 2).double(), numbers, rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(soft.square().sum(), leaves)
    for gradient, value in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, value, rtol=1e-3, atol=1e-5)
    hard = attention_displacements(*leaves, GRID, soft=False, **options)
    literal = literal_flow(*leaves, 2.0, False, mean_of)
    assert hard[0].reshape(-1, 2).tolist() == [[float(n) for n in literal[key]] for key in sorted(literal)]


def test_content_that_moves_is_followed():
    """The keys of frame j are the queries moved by j columns: every token that stays inside is found."""
    tokens = torch.eye(12).reshape(3, 4, 12)
    frames = torch.stack([torch.roll(tokens, number, dims=1) for number in range(3)])
    heads = 20 * frames.flatten(1, 2)[None, None]  # (1, 1, F, P, D)
    flow = attention_displacements(heads, heads, (3, 4), temperature=2.0, soft=True)
    inside = flow[0, 0, 2].reshape(3, 4, 2)[:, :2]
    torch.testing.assert_close(inside, torch.tensor([0.0, 2.0]).expand(3, 2, 2))
    assert bool((flow[0, 1, 1] == 0).all())


@pytest.mark.parametrize("variant", ["paper", "authors_code"])
def test_the_loss_is_the_mean_squared_difference(variant, loaded, monkeypatch):
    method = guidance("ditflow", loaded, variant=variant, injection=False)
    first, second = (torch.randint(0, 3, (n, 2, 2, 5, 2), generator=torch.Generator().manual_seed(n)).float()
                     for n in (1, 2))  # fmt: skip
    monkeypatch.setattr(type(method), "flows", [first])
    monkeypatch.setattr(method, "flow", lambda part, soft: second)

    class Read:
        def attention(self, *args):
            return [None]

    losses = method.batch_losses(Read(), None, 0.0, None)
    for row in range(2):
        terms = []
        for index in range(20):
            sample, reference = second[row].reshape(20, 2)[index], first[0].reshape(20, 2)[index]
            if variant == "paper" or bool((reference != 0).any()):
                terms += [(sample[0] - reference[0]) ** 2, (sample[1] - reference[1]) ** 2]
        assert losses[row] == pytest.approx(float(sum(terms) / len(terms)))


def test_the_reference_is_read_clean_at_t_0_with_the_empty_caption(dit, monkeypatch):
    seen, predict = [], dit.predict
    method = guidance("ditflow", dit)
    monkeypatch.setattr(dit, "predict", lambda x, t, c: (seen.append((x, t, c)), predict(x, t, c))[1])
    shapes = {flow.shape for flow in method.flows}
    ((x, t, captions),) = seen
    assert torch.equal(x, method.reference.latents)
    assert t == 0
    assert torch.equal(captions.embeds, method.reference.empty.embeds)
    assert shapes == {(1, 3, 3, 6, 2)}


def test_injected_keys_and_values_change_nothing_that_is_read_from_the_reference(dit):
    method, alone = (guidance("ditflow", dit, Window(700), injection=True) for _ in range(2))
    sampled(dit, method)
    assert method.losses
    for guiding, clean in zip(method.flows, alone.flows, strict=True):
        assert torch.equal(guiding, clean)


@pytest.mark.parametrize(("variant", "falls"), [("paper", 3), ("authors_code", 4)])
def test_the_learning_rate_falls_linearly_to_its_last_value(variant, falls, loaded, monkeypatch):
    rates, adam = [], torch.optim.Adam
    method = guidance("ditflow", loaded, injection=False, optimization_steps=1, variant=variant)
    monkeypatch.setitem(
        __import__("motionexp.methods.guidance").methods.guidance.OPTIMIZERS,
        "adam",
        lambda leaves, lr: (rates.append(lr), adam(leaves, lr=lr))[1],
    )
    sampled(loaded, method)
    assert rates == pytest.approx([0.002 - 0.001 * step / falls for step in range(4)])


def test_injected_keys_and_values_are_those_of_the_noised_reference(dit):
    method = guidance("injection", dit, Window(900))
    reads = []
    read = method.injection.read

    def keep(latents, noise, t, captions):
        stored = read(latents, noise, t, captions)
        x_t = dit.schedule.add_noise(latents, noise, t)
        part = Attended(*(3 * (torch.ones(4, 2, 3, 6, 16),)), slice(0, 4), next(iter(stored)))
        hook = method.injection.hooks(stored)["motion", 0]
        reads.append((x_t, stored, hook(part)))
        return stored

    method.injection.read = keep
    sampled(dit, method, (0, 1))
    (x_t, stored, replaced), *_ = reads
    (name,) = stored
    assert name == "transformer_blocks.0.attn1"
    assert torch.equal(x_t, dit.schedule.add_noise(method.reference.latents, method.noise, 999))
    key, value = stored[name]
    assert key.shape == value.shape == (2, 2, 3, 6, 16)
    assert torch.equal(replaced.key, torch.cat([key, key])), "both branches of guidance"
    assert torch.equal(replaced.value, torch.cat([value, value]))
    assert bool((replaced.query == 1).all())


@pytest.mark.parametrize("optimise", ["latents", "positions"])
def test_an_optimised_embedding_serves_other_captions(optimise, dit, monkeypatch):
    method = guidance("ditflow", dit, Window(500), optimise=optimise, zero_shot=True)
    evaluated = []
    losses = method.batch_losses
    monkeypatch.setattr(method, "batch_losses", lambda *args: (evaluated.append(args[3]), losses(*args))[1])
    first = sampled(dit, method)
    steps = len(evaluated)
    learning = dit.guidance_pair(method.reference.conditioning, method.reference.negative)[1]
    assert all(torch.equal(captions.embeds, learning.embeds) for captions in evaluated)
    assert steps == 2 * 2, "two guided steps of two optimizer steps"
    assert torch.equal(sampled(dit, method), first)
    assert len(evaluated) == steps, "the second sample of a noise optimises nothing"
    again = guidance("ditflow", dit, Window(500), optimise=optimise, zero_shot=True)
    torch.testing.assert_close(sampled(dit, again), first)
    assert not torch.equal(first, sampled(dit, None))
    with pytest.raises(InputError, match="eta"):
        sampled(dit, again, (1,), SamplerSettings(2, 2.0, 0.5), generator=torch.Generator())


def test_positions_are_optimised_from_step_to_step(dit):
    method = guidance("ditflow", dit, optimise="positions", injection=False, first_rate=0.05, last_rate=0.05)
    assert method.one_at_a_time
    sampled(dit, method, settings=SAMPLER)
    losses = [float(loss) for steps in method.losses.values() for loss in steps]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"blocks": [99]}, "block=99"),
        ({"injection_blocks": [-1]}, "block=-1"),
        ({"optimise": "weights"}, "method.optimise=weights"),
        ({"variant": "code"}, "method.variant=code"),
        ({"frames_at_once": 0}, "method.frames_at_once=0"),
        ({"temperature": 0.0}, "method.temperature=0"),
        ({"temperature": math.nan}, "method.temperature=nan"),
        ({"temperature": math.inf}, "method.temperature=inf"),
        ({"blocks": []}, r"method.blocks=\[\]"),
        ({"injection_blocks": []}, r"method.injection_blocks=\[\]"),
        ({"optimization_steps": 0}, "method.optimization_steps=0"),
        ({"first_rate": 0.0}, "method.first_rate=0"),
        ({"optimizer": "lion"}, "method.optimizer=lion"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings, named, loaded):
    with pytest.raises(InputError, match=named):
        guidance("ditflow", loaded, **settings)


def test_no_scores_are_kept_for_the_backward_pass():
    kept = set[int]()
    query, key = (tensor.requires_grad_() for tensor in random_heads())
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.add(x.numel()), x)[1], lambda x: x):
        attention_displacements(query, key, GRID, temperature=2.0, soft=True, frames_at_once=1)
    assert max(kept) < 3 * 6**2, "the scores of one frame's tokens with those of all frames"


def test_few_scores_are_in_memory_at_once(monkeypatch):
    sizes = []
    where = correspondence._expected_places
    monkeypatch.setattr(
        correspondence, "_expected_places", lambda s, c: (sizes.append(s.numel()), where(s, c))[1]
    )
    monkeypatch.setattr(correspondence, "SCORES_AT_ONCE", 3 * 6**2)
    query, key = random_heads()
    attention_displacements(query, key, GRID, temperature=2.0, soft=True)
    assert sizes == [3 * 6**2] * 3
