"""Who sees what: the pages of every questionnaire, drawn from the pairs, and the key that opens them again.

The key is for the people who run the study. It says which method is in which column; nothing that a
participant gets does.
"""

import hashlib
import json
import random
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from motionexp.config.study import StudyConfig
from motionexp.errors import InputError
from motionexp.jobs.pages.study.samples import Candidates, Pair

VERSION = 1
REFERENCE, STILL, ELSE = "the reference", "a still", "another motion"
"""What the columns of an attention check show in place of methods: the right answers are known.

The reference itself has its motion; a still has none; only the two videos of `ELSE` differ in motion, so that
it is absent where a page shows one video of each method.
"""


@dataclass(frozen=True)
class Page:
    """A page of a questionnaire.

    Attributes:
        pair: what it is about.
        columns: the methods from left to right; of an attention check `REFERENCE`, `STILL` and `ELSE`.
        is_check: whether it is an attention check.
    """

    pair: Pair
    columns: tuple[str, ...]
    is_check: bool = False


@dataclass(frozen=True)
class Plan:
    """The questionnaires of a study.

    Attributes:
        seeds: {pair: the indices of the noise of the samples that are shown}, the same for all people.
        pages: {code of a questionnaire: its pages in order}.
    """

    seeds: Mapping[Pair, tuple[int, ...]]
    pages: Mapping[str, tuple[Page, ...]]


def draw_plan(cfg: StudyConfig, candidates: Candidates, outputs: int) -> Plan:
    """Draw the pairs of the study, and the pages of every questionnaire.

    A questionnaire has a pair once, and a reference again only where there are fewer references than pages.
    Pairs that few people see are preferred, so that all are seen by nearly as many people.

    Args:
        cfg: with the numbers of people, pages, pairs and checks, and the seed.
        candidates: to draw from.
        outputs: samples of each method on a page.

    Raises:
        InputError: there are fewer pairs than a questionnaire has pages, or than `pairs=` says.
    """
    pairs = list(candidates.shown)
    if cfg.pairs is not None:
        if cfg.pairs > len(pairs):
            raise InputError(f"pairs={cfg.pairs}: there are {len(pairs)} pairs of a reference with an edit")
        pairs = sorted(_generator(cfg, "pairs").sample(pairs, cfg.pairs))
    if cfg.pages > len(pairs):
        raise InputError(
            f"pages={cfg.pages}: there are {len(pairs)} pairs of a reference with an edit; give pages= and"
            " pairs= at most so many and at least as many as pages"
        )
    of_seeds = _generator(cfg, "samples")
    seeds = {pair: tuple(sorted(of_seeds.sample(candidates.seeds(pair), outputs))) for pair in pairs}
    uses: Counter[Pair] = Counter()
    pages = {}
    for code in _codes(cfg):
        generator = _generator(cfg, f"questionnaire {code}")
        chosen = _chosen(pairs, cfg.pages, uses, generator)
        uses.update(chosen)
        columns = [REFERENCE, *[ELSE] * (outputs > 1), *[STILL] * len(candidates.methods)]
        columns = columns[: len(candidates.methods)]
        pages[code] = _pages(chosen, candidates.methods, columns, cfg.checks, generator)
    return Plan({pair: seeds[pair] for pair in pairs if uses[pair]}, pages)


def _generator(cfg: StudyConfig, purpose: str) -> random.Random:
    return random.Random(f"{cfg.seed} {purpose}")


def _codes(cfg: StudyConfig) -> list[str]:
    """A code of each questionnaire: its number, and letters so that a wrong number opens none."""
    generator = _generator(cfg, "codes")
    letters = ["".join(generator.choices(string.ascii_lowercase, k=4)) for _ in range(cfg.people)]
    return [f"{number:03d}-{word}" for number, word in enumerate(letters, start=1)]


def _chosen(pairs: Sequence[Pair], count: int, uses: Counter[Pair], generator: random.Random) -> list[Pair]:
    chosen: list[Pair] = []
    of_reference: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    for pair in pairs:
        total[pair[:2]] += uses[pair]
    for _ in range(count):
        left = [pair for pair in pairs if pair not in chosen]
        # The reference that is rarest here, then that is rarest in the study, then its rarest edit.
        pair = min(
            left, key=lambda pair: (of_reference[pair[:2]], total[pair[:2]], uses[pair], generator.random())
        )
        of_reference[pair[:2]] += 1
        chosen.append(pair)
    generator.shuffle(chosen)
    return chosen


def _pages(
    pairs: Sequence[Pair],
    methods: Sequence[str],
    checked: Sequence[str],
    checks: int,
    generator: random.Random,
) -> tuple[Page, ...]:
    """The pages of one questionnaire; `checked` are the columns of an attention check."""
    pages = [Page(pair, _shuffled(methods, generator)) for pair in pairs]
    for pair in generator.choices(pairs, k=checks):
        # Never the first page: people have to know the form.
        place = generator.randint(1, len(pages))
        pages.insert(place, Page(pair, _shuffled(checked, generator), is_check=True))
    return tuple(pages)


def _shuffled(columns: Sequence[str], generator: random.Random) -> tuple[str, ...]:
    return tuple(generator.sample(list(columns), len(columns)))


def make_key(cfg: StudyConfig, candidates: Candidates, plan: Plan) -> dict[str, Any]:
    """What a tally needs: the settings, who saw what in which column, and the scores of what was shown.

    Equal settings and samples give an equal key. Its name is the first half of a hash of the rest.
    """
    number = {pair: str(place) for place, pair in enumerate(plan.seeds, start=1)}
    content = {
        "version": VERSION,
        "form": cfg.form,
        "seed": cfg.seed,
        "methods": [*candidates.methods],
        "metrics": {name: better for name, better in sorted(candidates.directions.items())},
        "pairs": {
            number[pair]: {
                **pair._asdict(),
                "seeds": [*seeds],
                "samples": {
                    method: [shown.samples[seed].sample_id for seed in seeds]
                    for method, shown in candidates.shown[pair].items()
                },
                "scores": {
                    method: shown.mean_scores(seeds) for method, shown in candidates.shown[pair].items()
                },
            }
            for pair, seeds in plan.seeds.items()
        },
        "questionnaires": {
            code: [
                {"pair": number[page.pair], "check": page.is_check, "columns": [*page.columns]}
                for page in pages
            ]
            for code, pages in plan.pages.items()
        },
    }
    return {"study": _digest(content)[:12], **content}


def video_namer(key: Mapping[str, Any]) -> Callable[..., str]:
    """Names videos by what they show; without the key of `make_key` a name says nothing."""
    secret = _digest(key)
    return lambda *parts: f"{_digest([secret, *parts])[:16]}.mp4"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
