"""The settings of `python run.py score`, which scores videos that any system made. Imports no torch."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from motionexp.config.compose import CONF, explain, group_keys, prepared
from motionexp.config.metrics import metric_problems, set_metrics
from motionexp.config.schema import CHOICES, _key
from motionexp.config.scoring import ScoringConfig, scoring_problems
from motionexp.errors import InputError


@dataclass
class ScoreConfig:
    """Every setting of `python run.py score`; `--help` prints this list."""

    data: dict[str, Any] = _key({}, "the suite whose edits the videos show, as for a job")
    folder: str | None = _key(
        None, "the videos: SOURCE/REFERENCE/EDIT/00000.jpg, REFERENCE/EDIT.mp4, or a CSV"
    )
    system: str | None = _key(None, "name of what made them, in rows and tables; null: the folder's")
    frames: int | None = _key(None, "frames that each video has; null: as many as its reference in whole")
    references: Any = _key(None, "which references, by number or name; null: all that the suite has")
    edit_kinds: list[str] | None = _key(None, "only edits of these kinds; null: all that there are")
    fit: str = _key("crop", "how references are brought to the videos' size: crop or fit")
    metrics: list[str] | None = _key(None, "metrics to score; null: all that the data allow")
    scoring: ScoringConfig = field(default_factory=ScoringConfig, metadata={"help": "models behind scores"})
    device: str = _key("auto", "auto, cpu, cuda, cuda:N or mps")
    output: str = _key("outputs", "folder for the rows")

    @property
    def name(self) -> str:
        """The system's name, `folder`'s own where nobody named it."""
        return self.system or Path(self.folder or "").expanduser().resolve().stem


ConfigStore.instance().store(name="score_schema", node=ScoreConfig)


def load_score(overrides: Sequence[str]) -> ScoreConfig:
    """The checked settings of `python run.py score OVERRIDES`.

    Raises:
        InputError: names everything that is wrong.
    """
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("score", prepared(overrides), return_hydra_config=True)
        own = [str(key) for key in composed if key != "hydra"]
        plain = OmegaConf.to_container(OmegaConf.masked_copy(composed, own), resolve=True)
        cfg = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ScoreConfig), plain))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_explained(error)) from error
    cfg, choices = cast(ScoreConfig, cfg), composed.hydra.runtime.choices
    unknown = [key for key in cfg.data if key not in group_keys("data", choices["data"])]
    problems = [*(f"data.{key}: data={choices['data']} has no such setting" for key in unknown), *_check(cfg)]
    if problems:
        raise InputError("\n".join(problems))
    return cfg


def _explained(error: Exception) -> str:
    if missing := re.search(r"Could not override '([^']+)'|Key '([^']+)' not in", str(error)):
        known = ", ".join(each.name for each in fields(ScoreConfig))
        return f"{missing[1] or missing[2]}: score has no such setting; it has {known}"
    if "Interpolation key" in str(error):
        return "data=clip: score wants its captions in a file; put the clip into a folder (data=folder)"
    return explain(error)


def _check(cfg: ScoreConfig) -> Iterator[str]:
    if cfg.folder is None:
        yield "score: folder= is missing: the folder of the videos, or a CSV that lists them"
    elif not Path(cfg.folder).expanduser().exists():
        yield f"folder={cfg.folder}: there is no such folder or file"
    elif not re.fullmatch(r"\w[\w.-]*", cfg.name):
        yield f"system={cfg.name}: letters, digits, dots, dashes and underscores, for it names a folder"
    if cfg.frames is not None and cfg.frames < 1:
        yield f"frames={cfg.frames}: a whole number from 1"
    if cfg.fit not in CHOICES["fit"]:
        yield f"fit={cfg.fit}: crop or fit"
    yield from _metric_problems(cfg)
    for name in ("metrics", "edit_kinds"):
        if getattr(cfg, name) == []:
            yield f"{name}=[]: name at least one, or null for all that there are"


def _metric_problems(cfg: ScoreConfig) -> Iterator[str]:
    yield from scoring_problems(cfg.scoring)
    problems = list(metric_problems(cfg.metrics, plugins=()))
    yield from problems
    if not problems and (of_sets := set_metrics(cfg.metrics)):
        yield f"metrics=[{','.join(of_sets)}]: of all samples of an edit together; a job measures it"
