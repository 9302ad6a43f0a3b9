"""A sweep cut into tasks: one backbone, a part of the references, and all settings for them.

A *piece* is what a job does with references that are trained together, most often with one. A task is a list
of pieces. One process does it, in which jobs share adapters and samples of the base model. Imports no torch.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from motionexp.config.command_line import named, override_key, swept
from motionexp.config.schema import JobConfig, training_seeds, trains
from motionexp.config.settings import settings_in
from motionexp.data.select import make_reader, names_of
from motionexp.files import user_path
from motionexp.jobs.cell import read_fit_record

OF_BACKBONE = (
    *("model", "frames", "precision", "text_precision", "network_precision", "mode", "checkpointing"),
    *("offload", "device", "trainer"),
)


@dataclass(frozen=True)
class SweepJob:
    """A job of a sweep: its checked settings, and the words that a user would type for it alone."""

    cfg: JobConfig
    words: tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """What a job does with references that stay together.

    Attributes:
        job: its number in the sweep.
        references: their names.
        divides: whether the job can be told to take these references alone.
    """

    job: int
    references: tuple[str, ...]
    divides: bool


def pieces_of(number: int, cfg: JobConfig) -> list[Piece]:
    """The pieces of the job with this number. A job whose references have no names to list is one piece."""
    names = names_of(cfg, make_reader(cfg.data))
    if cfg.adapter is not None and cfg.video is None and isinstance(cfg.references, int | None):
        record = read_fit_record(user_path(cfg.adapter))
        if record:  # the job takes the reference that the adapter was tuned on
            return [Piece(number, (str(record["reference"]),), divides=False)]
    if cfg.video is not None or cfg.probe == "linear_probe":
        return [Piece(number, tuple(names), divides=False)]
    size = cfg.train_together
    return [
        Piece(number, tuple(names[first : first + size]), divides=True)
        for first in range(0, len(names), size)
    ]


def cut(
    jobs: Sequence[SweepJob],
    pieces: Iterable[Piece],
    cost: Callable[[Piece], float],
    count: Callable[[float], int],
) -> list[list[Piece]]:
    """Cut pieces into tasks, the longest first.

    Args:
        jobs: of the sweep.
        cost: of a piece, in any unit.
        count: the number of tasks for the cost of all. Every backbone has a task at least, and there are no
            more tasks than pieces that can be done apart.
    """
    by_backbone: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        by_backbone[backbone_of(jobs[piece.job].cfg)].append(piece)
    costs = [sum(map(cost, of_one)) for of_one in by_backbone.values()]
    tasks: list[list[Piece]] = []
    for of_one, size in zip(by_backbone.values(), shares(costs, count(sum(costs))), strict=True):
        blocks = _by_reference(jobs, of_one)
        if len(blocks) < size:
            blocks = [part for block in blocks for part in _by_adapter(jobs, block)]
        tasks += _spread(blocks, min(size, len(blocks)), cost)
    return sorted(tasks, key=lambda task: -sum(map(cost, task)))


def shares(costs: Sequence[float], count: int) -> list[int]:
    """`count` divided in proportion to costs, at least 1 each."""
    counts = [1] * len(costs)
    for _ in range(count - len(costs)):
        # To whom a further one helps most.
        most = max(range(len(costs)), key=lambda number: costs[number] / counts[number])
        counts[most] += 1
    return counts


def _spread(blocks: Sequence[list[Piece]], count: int, cost: Callable[[Piece], float]) -> list[list[Piece]]:
    """Blocks in `count` tasks of like cost: the longest first, each to the task that has least."""
    heap: list[tuple[float, int, list[Piece]]] = [(0.0, number, []) for number in range(count)]
    for block in sorted(blocks, key=lambda block: -sum(map(cost, block))):
        least, number, task = heapq.heappop(heap)
        heapq.heappush(heap, (least + sum(map(cost, block)), number, task + block))
    return [
        sorted(task, key=lambda piece: piece.job) for _, _, task in sorted(heap, key=lambda entry: entry[1])
    ]


def backbone_of(cfg: JobConfig) -> str:
    """What the jobs of one task have in common: one network, in one precision, on one device."""
    return repr([getattr(cfg, name) for name in OF_BACKBONE])


def _by_reference(jobs: Sequence[SweepJob], pieces: Sequence[Piece]) -> list[list[Piece]]:
    """The pieces that share a reference, which share the samples of the base model, and adapters."""
    # {reference: one of its group}. Groups overlap where jobs train together in groups of other sizes.
    above: dict[Hashable, Hashable] = {}

    def top(key: Hashable) -> Hashable:
        while above.setdefault(key, key) != key:
            key = above[key]
        return key

    suites = {
        number: (repr(jobs[number].cfg.data), jobs[number].cfg.video) for number in {p.job for p in pieces}
    }
    keys = [[(*suites[piece.job], name) for name in piece.references] for piece in pieces]
    for first, *more in keys:
        for key in more:
            above[top(key)] = top(first)
    blocks: dict[Hashable, list[Piece]] = defaultdict(list)
    for piece, (first, *_) in zip(pieces, keys, strict=True):
        blocks[top(first)].append(piece)
    return list(blocks.values())


def _by_adapter(jobs: Sequence[SweepJob], block: Sequence[Piece]) -> list[list[Piece]]:
    """The pieces that train or apply the same adapters."""
    parts: dict[str, list[Piece]] = defaultdict(list)
    for piece in block:
        parts[_adapter(jobs[piece.job].cfg)].append(piece)
    return list(parts.values())


def _adapter(cfg: JobConfig) -> str:
    """What adapters come from, seeds and references aside; all settings where nothing is trained."""
    if not trains(cfg):
        return repr(cfg)
    names = [
        name
        for name, about in settings_in(JobConfig).items()
        if {"training", "cell", "method"} & set(about.stages) and name != "seed"
    ]
    return repr([getattr(cfg, name) for name in (*names, "train_together")])


def cells_of(cfg: JobConfig, piece: Piece) -> list[tuple[str, int]]:
    """The reference and the training seed of every cell of a piece."""
    return [(name, seed) for name in piece.references for seed in training_seeds(cfg)]


# Commands


def commands_of(jobs: Sequence[SweepJob], task: Sequence[Piece]) -> list[list[str]]:
    """The arguments of `python run.py` that do a task: as few sweeps as its pieces need."""
    names: dict[int, list[str]] = defaultdict(list)
    divides = {piece.job: piece.divides for piece in task}
    for piece in task:
        names[piece.job] += piece.references
    singles = []
    for number, of_job in names.items():
        words = {override_key(word): word for word in jobs[number].words if override_key(word) != "dry_run"}
        if divides[number]:
            words["references"] = named("references", of_job)
        singles.append(words)
    return [["-m", *command] for command in merged(singles)]


def merged(jobs: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Sweeps that together are the jobs, whose words are given by the names of their settings.

    Jobs that differ in one setting are one sweep; sweeps that differ in one more are one again.
    """
    sweeps: list[dict[str, tuple[str, ...]]] = [{key: (word,) for key, word in job.items()} for job in jobs]
    for key in list(dict.fromkeys(key for job in jobs for key in job))[::-1]:
        alike: dict[Hashable, dict[str, tuple[str, ...]]] = {}
        for sweep in sweeps:
            rest = key in sweep, tuple((name, words) for name, words in sweep.items() if name != key)
            first = alike.setdefault(rest, dict(sweep))
            if key in sweep:
                first[key] = tuple(dict.fromkeys([*first[key], *sweep[key]]))
        sweeps = list(alike.values())
    return [[swept(words) for words in sweep.values()] for sweep in sweeps]
