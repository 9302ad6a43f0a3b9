"""The linear probe: what can be read of a video from x_t alone, and from a backbone's features of it.

"Video Diffusion Models Encode Motion in Early Timesteps", section 5.2, takes the latent at t = 600 for a
representation of motion without looks. Here each captioned attribute is read at each t by ridge regression,
and compared with an ideal observer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from motionexp.data.shapes import grammar
from motionexp.data.shapes.scenes import Scene, draw, seeded
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.schedule import generator
from motionexp.probes.block_features import block_features

TARGETS: Mapping[str, tuple[str, ...]] = {"motion": grammar.CAPTIONED, **grammar.ATTRIBUTES}
"""What is read, and the classes that there are."""
TIMESTEPS = (*range(0, 1000, 100), 999)
X_T = "x_t"
X_T_CLEAN = "x_t, learnt from x_0"
OBSERVER = "ideal observer"
HELD_OUT = 4
"""One of so many training videos chooses the penalty."""
PENALTIES = tuple(10.0 ** (half / 2) for half in range(-10, 5))
"""In units of the training videos' total energy."""

Features = dict[str, Float[Tensor, "n d"]]
Labels = Mapping[str, Int64[Tensor, " n"]]
Readings = dict[str, dict[str, Float[Tensor, "m k"]]]
"""{features: {target: (M, classes) scores}}."""


def scenes(part: str, contrast: str, count: int) -> list[Scene]:
    """Scenes that no training has seen, for one part (`train` or `test`) of the probe.

    Each captioned motion comes equally often, whatever the shape: in pretraining a shape often moves in its
    own manner (`grammar.MANNERS`), and a motion could then be read from the shape.
    """
    motions = grammar.CAPTIONED
    return [
        draw(
            seeded("linear probe", part, contrast, index),
            contrast=contrast,
            choices=(motions[index % len(motions)],),
        )
        for index in range(count)
    ]


def labels(videos: Sequence[Scene]) -> Labels:
    """The number of each scene's class, for each target."""
    return {
        target: torch.tensor([classes.index(scene.attributes[target]) for scene in videos])
        for target, classes in TARGETS.items()
    }


class Ridge:
    """Least squares from features to numbers, penalised by the squared weights; the offset is not.

    In the dual form: features of one video are many more (16,384 in x_t of `tiny_latte`) than videos, and all
    that is needed of them are their products. One eigendecomposition serves all targets and penalties.

    Args:
        features: (N, D), a row for each training video.
    """

    def __init__(self, features: Float[Tensor, "n d"]) -> None:
        self.mean = features.mean(dim=0)
        self.centred = features - self.mean
        self.values, self.vectors = torch.linalg.eigh((self.centred @ self.centred.T).double())
        # All-zero features (x_0's share of x_t at zero SNR) must give equal scores and not 0 / 0.
        self.unit = float(self.values.sum().clamp_min(1e-12))

    def products(self, features: Float[Tensor, "m d"]) -> Float[Tensor, "m n"]:
        """What `scores` needs to know of other videos' features (M, D)."""
        return ((features - self.mean) @ self.centred.T).double()

    def scores(
        self, products: Float[Tensor, "m n"], wanted: Float[Tensor, "n k"], penalty: float
    ) -> Float[Tensor, "m k"]:
        """Predicted numbers of M videos less the training videos' mean.

        Args:
            products: from `products`.
            wanted: the training videos' numbers.
            penalty: of the squared weights, in units of the features' total energy.
        """
        weights = self.vectors.T @ (wanted - wanted.mean(dim=0))
        return products @ (self.vectors @ (weights / (self.values + penalty * self.unit)[:, None]))


def read_classes(train: Tensor, held_out: Tensor, test: Tensor, known: Labels) -> dict[str, Tensor]:
    """Scores of every target's classes for test videos, by ridge regression to one number a class, 0 or 1.

    The penalty is that of the least squared error on the last of the training videos, learnt from the others;
    then all are learnt from. The frequency of a class adds nothing to its score.

    Args:
        train: (N, D) features of the training videos to learn from.
        held_out: (H, D) features of the last H training videos to choose the penalty on.
        test: (M, D).
        known: classes of the training videos.

    Returns:
        {target: (M, classes)}
    """
    count = len(train) - len(held_out)
    part, whole = Ridge(train[:count]), Ridge(train)
    near, far = part.products(held_out), whole.products(test)
    found = {}
    for target, own in known.items():
        wanted = one_hot(own, len(TARGETS[target])).double()
        truth = wanted[count:] - wanted[:count].mean(dim=0)
        errors = [
            float((part.scores(near, wanted[:count], penalty) - truth).square().mean())
            for penalty in PENALTIES
        ]
        found[target] = whole.scores(far, wanted, PENALTIES[errors.index(min(errors))])
    return found


def two_alternative(scores: Float[Tensor, "m k"], truth: Int64[Tensor, " m"]) -> Float[Tensor, " m"]:
    """How often the true class scores above another one, drawn at random; equal scores count half."""
    own = scores.gather(1, truth[:, None])
    wins = (own > scores).double() + (own == scores).double() / 2
    # The true class ties with itself.
    return (wins.sum(dim=1) - 0.5) / (scores.shape[1] - 1)


def correct(scores: Float[Tensor, "m k"], truth: Int64[Tensor, " m"]) -> Float[Tensor, " m"]:
    """1 where the true class has the highest score, 0 elsewhere."""
    return (scores.argmax(dim=1) == truth).double()


def ideal_observer(schedule: Schedule, distances: Float[Tensor, " p"], t: float) -> Float[Tensor, " p"]:
    """Probability that the best of all observers tells which of two known videos x_t was made from.

    It is Phi(d' / 2) with d' = sqrt(SNR) |D|, D the difference of the two videos' latents. It bounds whatever
    is read from x_t, linear or not, for that pair alone: the observer has seen both videos without noise. A
    probe is asked something harder, for it knows neither the object's place nor its other looks nor the
    nuisances, and has only some videos to learn the classes from; how far it stays below is no loss of x_t's.
    And where an attribute goes together with another, which is left out of a pair, it may be read from that,
    and the bound does not hold.

    Args:
        schedule: gives the SNR at t.
        distances: Euclidean, one for each pair that differs in one attribute alone.
        t: timestep.
    """
    snr = schedule.log_snr(t).double().exp()
    return torch.special.ndtr(snr.sqrt() * distances.double() / 2)


@dataclass(frozen=True, eq=False)
class Probe:
    """Training and test videos of one contrast, seen by one backbone.

    Attributes:
        backbone: its schedule gives the noise, its network the features.
        caption: the empty one, embedded: nothing of a video's caption reaches its features.
        blocks: names from `features.motion_blocks`.
        train, test: latents (N, C, F, h, w) on the CPU.
        known, truth: their classes.
        draws: noises of each training video, whose features are averaged.
    """

    backbone: Backbone
    caption: Conditioning
    blocks: Sequence[str]
    train: Tensor
    test: Tensor
    known: Labels
    truth: Labels
    draws: int

    def evaluations(self) -> int:
        """How many videos go through the network for one timestep."""
        return self.draws * len(self.train) + len(self.test)

    def read(self, t: int, progress: Callable[[int], object] = lambda videos: None) -> Readings:
        """Scores of the test videos at t; `progress` gets how many videos went through the network.

        Every test video has one noise, the same at all t. Noise in the training videos' features spoils what
        is learnt, at little SNR more than all else, and then says nothing of what could be read; so they are
        averaged over `draws` noises. Of x_t the mean over all noises is known, sqrt(alpha_bar) x_0, and noise
        of equal variance everywhere acts on least squares as a penalty does: `X_T_CLEAN` is learnt from all
        noises that there are, and answers how much of a video can be read from x_t. `X_T`, with as many
        noises as the blocks, is what they compare with.
        """
        last = len(self.train) // HELD_OUT
        train = self._features("train", self.train, t, 0, progress)
        held_out = {name: each[-last:] for name, each in train.items()}
        for index in range(1, self.draws):
            for name, more in self._features("train", self.train, t, index, progress).items():
                train[name] = train[name] + (more - train[name]) / (index + 1)
        test = self._features("test", self.test, t, 0, progress)
        scaled = self.backbone.schedule.add_noise(self.train, torch.zeros_like(self.train), t).flatten(1)
        found = {X_T_CLEAN: read_classes(scaled, held_out[X_T], test[X_T], self.known)}
        return found | {
            name: read_classes(train[name], held_out[name], test[name], self.known) for name in train
        }

    def _features(
        self, part: str, latents: Tensor, t: int, index: int, progress: Callable[[int], object]
    ) -> Features:
        """x_t of videos with their `index`-th noise, and the blocks' features of it."""
        shape = latents.shape[1:]
        noise = [
            torch.randn(shape, generator=generator("linear probe", part, video, index))
            for video in range(len(latents))
        ]
        x_t = self.backbone.schedule.add_noise(latents, torch.stack(noise), t)
        blocks = block_features(self.backbone, x_t, t, self.caption, self.blocks)
        progress(len(latents))
        return {X_T: x_t.flatten(1)} | {f"block {name}": each for name, each in blocks.items()}
