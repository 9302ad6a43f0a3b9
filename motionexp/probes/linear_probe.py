"""The linear probe: what can be read linearly from x_t, and from a backbone's features of x_t.

"Video Diffusion Models Encode Motion in Early Timesteps", section 5.2, takes the latent at t = 600 as a
representation of motion without appearance. This probe reads each captioned attribute at each t by ridge
regression, and compares the accuracy with that of an ideal observer.
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
from motionexp.probes.analysis.linear_rows import TARGETS, X_T, X_T_CLEAN
from motionexp.probes.block_features import block_features

HELD_OUT = 4
"""One of `HELD_OUT` training videos chooses the penalty."""
PENALTIES = tuple(10.0 ** (half / 2) for half in range(-10, 5))
"""In units of the total energy of the training videos."""

Features = dict[str, Float[Tensor, "n d"]]
Labels = Mapping[str, Int64[Tensor, " n"]]
Scores = dict[str, dict[str, Float[Tensor, "m k"]]]
"""{features: {target: (M, classes)}}"""


def scenes(part: str, contrast: str, count: int) -> list[Scene]:
    """Scenes for one part (`train` or `test`) of the probe; no training has used them.

    All captioned motions are equally frequent, and independent of the shape. In pretraining a shape often has
    a typical motion (`grammar.MANNERS`), and the motion could then be read from the shape.
    """
    motions = grammar.CAPTIONED
    return [
        draw(
            seeded("linear probe", part, contrast, index),
            contrast=contrast,
            # In turn and not at random: a class that is absent by chance could not be learnt.
            choices=(motions[index % len(motions)],),
        )
        for index in range(count)
    ]


def labels(videos: Sequence[Scene]) -> Labels:
    """{target: (N,) class number of each scene}."""
    return {
        target: torch.tensor([classes.index(scene.attributes[target]) for scene in videos])
        for target, classes in TARGETS.items()
    }


class Ridge:
    """Least squares from features to numbers, with a penalty on the squared weights but not on the offset.

    It is solved in the dual form: a video has many more features (16,384 in x_t of `tiny_latte`) than there
    are videos, and only products of features are needed. One eigendecomposition serves all targets and
    penalties.

    Args:
        features: (N, D), a row for each training video.
    """

    def __init__(self, features: Float[Tensor, "n d"]) -> None:
        self.mean = features.mean(dim=0)
        self.centred = features - self.mean
        # The Gram matrix (N, N) in double: its condition number is the square of the features'.
        self.values, self.vectors = torch.linalg.eigh((self.centred @ self.centred.T).double())
        # All-zero features (x_0's share of x_t at zero SNR) must give equal scores and not 0 / 0.
        self.unit = float(self.values.sum().clamp_min(1e-12))

    def products(self, features: Float[Tensor, "m d"]) -> Float[Tensor, "m n"]:
        """Products of other videos' features (M, D) with the training features, for `scores`."""
        return ((features - self.mean) @ self.centred.T).double()

    def scores(
        self, products: Float[Tensor, "m n"], targets: Float[Tensor, "n k"], penalty: float
    ) -> Float[Tensor, "m k"]:
        """Predicted numbers of M videos minus the mean of the training videos.

        Args:
            products: from `products`.
            targets: the training videos' numbers.
            penalty: of the squared weights, in units of the features' total energy.
        """
        # (N, K) in the basis of eigenvectors, where the penalty is added to each eigenvalue.
        weights = self.vectors.T @ (targets - targets.mean(dim=0))
        return products @ (self.vectors @ (weights / (self.values + penalty * self.unit)[:, None]))


def read_classes(train: Tensor, held_out: Tensor, test: Tensor, train_labels: Labels) -> dict[str, Tensor]:
    """Scores of every target's classes for test videos, by ridge regression to 0 or 1 for each class.

    The penalty is the one with the smallest squared error on the last training videos, learnt from the other
    ones; afterwards all training videos are learnt from. The frequency of a class adds nothing to its score.

    Args:
        train: (N, D) features of the training videos to learn from.
        held_out: (H, D) features of the last H training videos to choose the penalty on.
        test: (M, D).
        train_labels: classes of the training videos.

    Returns:
        {target: (M, classes)}
    """
    # 1. One decomposition without the held-out videos, for the penalty, and one with all, for the scores.
    count = len(train) - len(held_out)
    part, whole = Ridge(train[:count]), Ridge(train)
    held_out_products, test_products = part.products(held_out), whole.products(test)
    scores = {}
    for target, numbers in train_labels.items():
        classes = one_hot(numbers, len(TARGETS[target])).double()
        # 2. Scores lack the mean of the training classes, so the truth must lack it too.
        truth = classes[count:] - classes[:count].mean(dim=0)
        # Chosen by squared error, not by accuracy: few videos give many equal accuracies.
        errors = [
            float((part.scores(held_out_products, classes[:count], penalty) - truth).square().mean())
            for penalty in PENALTIES
        ]
        # A class has a column: (M, classes).
        scores[target] = whole.scores(test_products, classes, PENALTIES[errors.index(min(errors))])
    return scores


def two_alternative(scores: Float[Tensor, "m k"], truth: Int64[Tensor, " m"]) -> Float[Tensor, " m"]:
    """How often the true class scores above another class, drawn at random; equal scores count half."""
    true_score = scores.gather(1, truth[:, None])
    wins = (true_score > scores).double() + (true_score == scores).double() / 2
    # The true class ties with itself.
    return (wins.sum(dim=1) - 0.5) / (scores.shape[1] - 1)


def correct(scores: Float[Tensor, "m k"], truth: Int64[Tensor, " m"]) -> Float[Tensor, " m"]:
    """1 where the true class has the highest score, 0 elsewhere."""
    # argmax takes the first of equal scores.
    return (scores.argmax(dim=1) == truth).double()


def ideal_observer(schedule: Schedule, distances: Float[Tensor, " p"], t: float) -> Float[Tensor, " p"]:
    """Probability that an ideal observer says which of two known videos x_t was made from.

    It is Phi(d' / 2) with d' = sqrt(SNR) |D|, where D is the difference of the two videos' latents. This is
    an upper bound for every reader of x_t, linear or not, but for that pair alone: the observer has seen both
    videos without noise. A probe has a harder task. It does not know the place of the object, its other
    attributes or the background texture, and learns the classes from few videos. Its distance from the bound
    is therefore not information that x_t lacks. The bound does not hold for an attribute that is correlated
    with another one which the pair leaves out.

    Args:
        schedule: gives the SNR at t.
        distances: (P,) Euclidean, one for each pair that differs in one attribute alone.
        t: timestep.
    """
    snr = schedule.log_snr(t).double().exp()
    # ndtr is Phi, the normal distribution function; d' as in signal detection theory.
    return torch.special.ndtr(snr.sqrt() * distances.double() / 2)


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Training and test videos of one contrast, and the backbone whose features are read.

    Attributes:
        backbone: its schedule gives the noise, its network the features.
        caption: the empty caption, embedded, so that features do not depend on a video's caption.
        blocks: names from `block_features.motion_blocks`.
        train: latents (N, C, F, h, w) on the CPU.
        test: latents (M, C, F, h, w) on the CPU.
        train_labels: classes of the training videos.
        test_labels: classes of the test videos.
        draws: number of noises of each training video, whose features are averaged.
    """

    backbone: Backbone
    caption: Conditioning
    blocks: Sequence[str]
    train: Tensor
    test: Tensor
    train_labels: Labels
    test_labels: Labels
    draws: int

    def evaluations(self) -> int:
        """Number of videos that go through the network for one timestep."""
        return self.draws * len(self.train) + len(self.test)

    def read(self, t: int, progress: Callable[[int], object] = lambda videos: None) -> Scores:
        """Scores of the test videos at t.

        Every test video has one noise, the same at all t. Noise in the training features harms what is
        learnt, at low SNR more than anything else, and then accuracy no longer says what could be read. The
        training features are therefore averaged over `draws` noises. For x_t the mean over all noises is
        known: sqrt(alpha_bar) x_0; and noise of equal variance everywhere acts on least squares as a penalty
        does. So `X_T_CLEAN` is learnt from infinitely many noises and answers how much can be read from x_t.
        `X_T` is learnt from as many noises as the blocks, for comparison with them.

        Args:
            progress: called with the number of videos that went through the network.
        """
        # 1. Features of the training videos, averaged over noises. The penalty is chosen on a single noise.
        last = len(self.train) // HELD_OUT
        train = self._features("train", self.train, t, 0, progress)
        held_out = {name: features[-last:] for name, features in train.items()}
        for index in range(1, self.draws):
            for name, features in self._features("train", self.train, t, index, progress).items():
                # A running mean: only two sets of features are in memory.
                train[name] = train[name] + (features - train[name]) / (index + 1)
        # 2. Scores of the test videos, which have one noise.
        test = self._features("test", self.test, t, 0, progress)
        # Zero noise leaves sqrt(alpha_bar) x_0: (N, C F h w).
        scaled = self.backbone.schedule.add_noise(self.train, torch.zeros_like(self.train), t).flatten(1)
        scores = {X_T_CLEAN: read_classes(scaled, held_out[X_T], test[X_T], self.train_labels)}
        return scores | {
            name: read_classes(train[name], held_out[name], test[name], self.train_labels) for name in train
        }

    def _features(
        self, part: str, latents: Tensor, t: int, index: int, progress: Callable[[int], object]
    ) -> Features:
        """x_t of videos with their `index`-th noise, and the blocks' features of it."""
        shape = latents.shape[1:]
        # A generator for each video: a video's noise does not depend on how many others there are.
        noise = [
            torch.randn(shape, generator=generator("linear probe", part, video, index))
            for video in range(len(latents))
        ]
        x_t = self.backbone.schedule.add_noise(latents, torch.stack(noise), t)
        blocks = block_features(self.backbone, x_t, t, self.caption, self.blocks)
        progress(len(latents))
        return {X_T: x_t.flatten(1)} | {f"block {name}": features for name, features in blocks.items()}
