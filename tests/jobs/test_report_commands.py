"""The command of a sample gives the settings that made it."""

import json
import shlex
from dataclasses import asdict

import pytest
import yaml

from motionexp.config.compose import load
from motionexp.config.job_settings import row_settings
from motionexp.config.schema import method_name
from motionexp.data.videos import write_mp4
from motionexp.jobs.pages.report.commands import command_of
from motionexp.jobs.pages.report.samples import ShownSample
from tests.support.made_output import moving_square
from tests.support.made_rows import made_row

NAME = "references=[34-zigzag-lime-square]"
CAPTION = 'a "red" star, it\'s <b>moving</b> \\ ${now}'
JOBS = (
    [
        NAME,
        "tau=600",
        "rank=8",
        "projections=[q,k]",
        "edit_kinds=[style]",
        "sampling_tau=0",
        "adapter_scale=0.5",
    ],
    [
        NAME,
        "tau=400",
        "soft_window=[[400,0],[1000,1]]",
        "seed=3",
        "data.appearances=4",
        "edits=['a red star moves']",
    ],
    [NAME, "tau=1000", "data=captioned", "steps=10"],
    [NAME, "method=t_lora", "method.rank_over_t=rising"],
    [NAME, "method=ditflow"],
    ["video={clip}", f"caption={CAPTION}", "edits=['a red star moves']", "model=latte", "stride=1"],
)


def stored(folder, words) -> ShownSample:
    """A sample of a job, with the settings that the job stores."""
    cfg = load(words)
    cell = folder / "shapes" / cfg.model.name / "id"
    (cell / "media").mkdir(parents=True)
    (cell / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(asdict(cfg)))))
    row = made_row(
        model=cfg.model.name,
        reference="34-zigzag-lime-square",
        edit_kind="style",
        edit_caption="a red star moves",
        method="base" if cfg.tau == 1000 else method_name(cfg.method),
        tau=float(cfg.tau),
        precision="fp32",
        settings=json.loads(json.dumps(row_settings(cfg))),
        sample_file=f"shapes/{cfg.model.name}/id/media/a.mp4",
        sample_id="a",
        strata={"split": "benchmark"},
    )
    return ShownSample([row], folder)


@pytest.mark.parametrize("words", JOBS, ids=[" ".join(words)[:60] for words in JOBS])
def test_the_command_gives_the_settings_again(words, tmp_path):
    write_mp4(tmp_path / "clip.mp4", moving_square(0), 8.0)
    words = [word.format(clip=tmp_path / "clip.mp4") if word.startswith("video=") else word for word in words]
    sample = stored(tmp_path, words)
    program, file, *again = shlex.split(command_of(sample))
    assert (program, file) == ("python", "run.py")
    first, second = load(words), load(again)
    of_first, of_second = (row_settings(cfg) for cfg in (first, second))
    differing = {name for name in of_first if of_first[name] != of_second[name]}
    assert differing <= {"precision"}
    assert second.data | {"edits": None} == first.data | {"edits": None}
    assert second.caption == first.caption
    assert second.references == (None if first.video else ["34-zigzag-lime-square"])
