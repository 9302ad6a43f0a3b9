"""From `conf/` and overrides to a checked ScoreConfig: videos that any system made. Imports no torch."""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from motionexp.config.checks import unwritable
from motionexp.config.command_line import as_values, prepared
from motionexp.config.compose import explain, folders_of, settle_target, typed_names
from motionexp.config.metrics import metric_problems, set_metrics
from motionexp.config.options import CONF, option_file
from motionexp.config.schema import ScoreConfig
from motionexp.config.scoring import scoring_problems
from motionexp.config.settings import NAME, check_lists, setting_problems, settings_in
from motionexp.errors import InputError, one_of
from motionexp.files import user_path

ConfigStore.instance().store(name="score_schema", node=ScoreConfig)


def load_score(overrides: Sequence[str]) -> ScoreConfig:
    """The checked settings of `python run.py score OVERRIDES`.

    Raises:
        InputError: names everything that is wrong.
    """
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("score", prepared(overrides), return_hydra_config=True)
        settings = [str(key) for key in composed if key != "hydra"]
        plain: Any = OmegaConf.to_container(OmegaConf.masked_copy(composed, settings), resolve=True)
        option = option_file("data", composed.hydra.runtime.choices["data"], folders_of(composed.hydra))
        typed = typed_names(composed.hydra)
        problems = settle_target("data", option, plain, typed)
        cfg: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ScoreConfig), as_values(plain)))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_explained(error)) from error
    check_lists(cfg)
    if "fit" in typed and cfg.data.get("fit") != cfg.fit:
        problems.append("fit=: data= does not take it, or gives another value; leave it out")
    if problems := [*problems, *_check(cfg)]:
        raise InputError("\n".join(problems))
    assert isinstance(cfg, ScoreConfig)
    return cfg


def _explained(error: Exception) -> str:
    # Hydra words an override of an unknown key in two ways.
    if missing := re.search(r"Could not override '([^'.]+)'|Key '([^']+)' not in", str(error)):
        name = missing[1] or missing[2]
        return f"{name}: score has no such setting; {one_of(name, settings_in(ScoreConfig))}"
    # data=clip reads the captions from settings that a job has.
    if "Interpolation key" in str(error):
        return "data=clip: score needs captions in a file; put the clip into a folder (data=folder)"
    return explain(error)


def _check(cfg: ScoreConfig) -> Iterator[str]:
    if cfg.folder is None:
        yield "score: folder= is missing: the folder of the videos, or a CSV that lists them"
    elif not os.path.exists(user_path(cfg.folder)):
        yield f"folder={cfg.folder}: there is no such folder or file"
    elif not re.fullmatch(NAME, cfg.name):
        yield f"system={cfg.name}: letters, digits, dots, dashes and underscores, because it names a folder"
    if problem := unwritable(user_path(cfg.output)):
        yield f"output={cfg.output}: {problem}; name a folder that can be written"
    yield from setting_problems(cfg)
    yield from scoring_problems(cfg.scoring)
    if plugins := [name for name in cfg.metrics or [] if "." in name]:
        yield f"metrics=[{','.join(plugins)}]: only a job measures the metrics of plugins"
        return
    yield from metric_problems(cfg.metrics)
    if of_sets := set_metrics(cfg.metrics):
        yield f"metrics=[{','.join(of_sets)}]: it compares all samples of an edit; only a job measures it"
