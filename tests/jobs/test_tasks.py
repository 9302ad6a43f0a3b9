"""A sweep cut into tasks, as commands that a user could type."""

import shlex
from collections import Counter
from dataclasses import replace

import pytest
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from omegaconf import OmegaConf

from motionexp.config.command_line import named, prepared
from motionexp.config.compose import load
from motionexp.config.options import CONF
from motionexp.data.select import make_reader
from motionexp.jobs import costs
from motionexp.jobs.costs import Costs, Rates, cell_cost
from motionexp.jobs.experiment import check_sweep, sweep_jobs
from motionexp.jobs.tasks import SweepJob, commands_of, cut, merged, pieces_of, shares
from motionexp.results.rows import Row

pytestmark = pytest.mark.usefixtures("quiet")


def jobs_of(words):
    """The jobs of `python run.py -m WORDS`, checked, with the words of each."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = [cfg for cfg, _ in check_sweep(prepared(words))]
    return sweep_jobs([words], settings)


def again(commands):
    """The settings of all jobs of some commands."""
    settings = []
    for flag, *words in commands:
        assert flag == "-m"
        with initialize_config_dir(str(CONF), version_base="1.3"):
            settings += [cfg for cfg, _ in check_sweep(prepared(words))]
    return settings


def by_name(cfg):
    """Settings in a form that can be compared: the references by their names."""
    return [(piece.references, replace(cfg, references=None)) for piece in pieces_of(0, cfg)]


def same_jobs(settings, others):
    listed = sorted(map(repr, (entry for cfg in settings for entry in by_name(cfg))))
    return listed == sorted(map(repr, (entry for cfg in others for entry in by_name(cfg))))


def tasks_of(jobs, count):
    pieces = [piece for number, job in enumerate(jobs) for piece in pieces_of(number, job.cfg)]
    return cut(jobs, pieces, Costs(jobs, lambda cfg: Rates()).of_piece, lambda total: count)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, ["tau=range(0,900,300)", "method=lora,full_rank"]),
        (100, ["tau=0,700", "rank=2,4", "references=2"]),
        (3, ["model=tiny_latte,tiny_unet3d", "tau=0,700", "references=3", "train_together=2"]),
        (9, ["""edits=["a red plain star is moving on ice"],['a blue plain star is moving on ice']"""]),
        (
            2,
            [
                """negative_prompt=choice("it's red, 'or' \\"blue\\"","null","${tau} \\\\","; rm $HOME")""",
                "model.closed_vocabulary=false",
                "guidance_scale=2",
            ],
        ),
        (2, ["probe=tampering", "references=3", "guidance_scale=2,4"]),
    ],
    ids=lambda value: str(value[0])[:20] if isinstance(value, list) else "",
)
def test_the_commands_of_all_tasks_are_the_jobs_of_the_sweep(count, words, base):
    jobs = jobs_of([*base[1:], *words])
    commands = [command for task in tasks_of(jobs, count) for command in commands_of(jobs, task)]
    assert same_jobs([job.cfg for job in jobs], again(commands))
    # Through a shell too.
    assert [shlex.split(shlex.join(command)) for command in commands] == commands


def test_a_task_has_one_backbone_and_shares_references_between_settings():
    jobs = jobs_of(["model=tiny_latte,tiny_unet3d", "tau=0,500,700", "references=4"])
    tasks = tasks_of(jobs, 4)
    assert len(tasks) == 4
    for task in tasks:
        assert len({jobs[piece.job].cfg.model.name for piece in task}) == 1
        taus = Counter(name for piece in task for name in piece.references)
        assert set(taus.values()) == {3}  # each of its references with every tau
        assert len(commands_of(jobs, task)) == 1


def test_settings_are_divided_where_references_do_not_suffice_but_not_those_of_one_adapter():
    jobs = jobs_of(["tau=0,500,700", "adapter_scale=0.5,1", "references=1"])
    tasks = tasks_of(jobs, 6)
    assert len(tasks) == 3
    for task in tasks:
        assert len({jobs[piece.job].cfg.tau for piece in task}) == 1
        assert {jobs[piece.job].cfg.adapter_scale for piece in task} == {0.5, 1.0}


def test_references_that_are_trained_together_stay_together():
    jobs = jobs_of(["tau=0,700", "references=5", "train_together=2"])
    tasks = tasks_of(jobs, 100)
    shards = {piece.references for task in tasks for piece in task}
    assert sorted(map(len, shards)) == [1, 2, 2]
    with_others = jobs_of(["train_together=2,3", "references=6"])
    # Groups of 2 and of 3 overlap: what is apart are the two jobs.
    assert sorted(len(task) for task in tasks_of(with_others, 9)) == [2, 3]
    (together,) = tasks_of(with_others, 1)
    assert len(together) == 5


def test_costs_look_at_the_files_of_a_suite_once(monkeypatch):
    made = []

    def making(data):
        made.append(data)
        return make_reader(data)

    monkeypatch.setattr(costs, "make_reader", making)
    jobs = jobs_of(["train_steps=10,400", "references=8"])
    cost = Costs(jobs, lambda cfg: Rates()).of_piece
    pieces = [piece for number, job in enumerate(jobs) for piece in pieces_of(number, job.cfg)]
    assert sum(map(cost, pieces)) > 0
    assert len(made) == 1


def test_the_longest_task_is_first_and_tasks_end_together():
    jobs = jobs_of(["train_steps=10,400", "references=8"])
    pieces = [piece for number, job in enumerate(jobs) for piece in pieces_of(number, job.cfg)]
    cost = Costs(jobs, lambda cfg: Rates()).of_piece
    # Of different lengths: the first reference has only the short job.
    pieces = [piece for piece in pieces if (piece.job, piece.references) != (1, pieces[0].references)]
    tasks = cut(jobs, pieces, cost, lambda total: 3)
    sums = [sum(map(cost, task)) for task in tasks]
    assert sums == sorted(sums, reverse=True)
    assert max(sums) - min(sums) <= max(map(cost, pieces)) + min(map(cost, pieces))
    assert sorted(map(str, (piece for task in tasks for piece in task))) == sorted(map(str, pieces))


@pytest.mark.parametrize(
    ("costs", "count", "expected"),
    [([3.0, 1.0], 4, [3, 1]), ([1.0, 1.0, 1.0], 2, [1, 1, 1]), ([0.0, 5.0], 3, [1, 2]), ([7.0], 1, [1])],
)
def test_tasks_are_shared_out_by_cost(costs, count, expected):
    assert shares(costs, count) == expected


def test_a_clip_and_an_adapter_are_one_piece(tmp_path):
    cfg = load(["references=3"])
    assert [piece.divides for piece in pieces_of(0, cfg)] == [True] * 3
    linear = load(["probe=linear_probe", "references=6"])
    assert [piece.divides for piece in pieces_of(0, linear)] == [False]
    (tmp_path / "fit.json").write_text(
        '{"suite": "shapes", "reference": "02-wander-blue-circle", "steps": 1, "seconds": 1.0}'
    )
    tuned = replace(cfg, adapter=str(tmp_path), references=None)
    (piece,) = pieces_of(0, tuned)
    assert (piece.references, piece.divides) == (("02-wander-blue-circle",), False)
    words = ("adapter=" + str(tmp_path), "seeds=2")
    assert commands_of([SweepJob(tuned, words)], [piece]) == [["-m", *words]]


def test_jobs_become_as_few_sweeps_as_their_settings_allow():
    jobs = [{"a": f"tau={a}", "b": f"rank={b}"} for a in (0, 700) for b in (2, 4)]
    assert merged(jobs) == [["tau=0,700", "rank=2,4"]]
    assert merged(jobs[:3]) == [["tau=0", "rank=2,4"], ["tau=700", "rank=2"]]


def test_names_out_of_data_are_read_back_letter_by_letter():
    names = [
        "a-1",
        "007",
        "1e5",
        "null",
        "true",
        "a b",
        'it\'s "x"',
        "a,b]",
        "${tau}",
        "\\",
        "$(rm x); y",
        "é",
    ]
    override = OverridesParser.create().parse_override(named("references", names))
    listed = [value.text if isinstance(value, QuotedString) else value for value in override._value]
    assert OmegaConf.to_container(OmegaConf.create({"names": listed}), resolve=True) == {"names": names}


def row(**fields):
    about = {"metric": "m", "metric_version": 1, "value": 0.0, "suite": "s", "reference": "r", "model": "m"}
    settings = {"batch_size": 2, "guidance_scale": 7.5}
    return Row(**about, method="lora", tau=0.0, settings=settings, steps=10, train_steps=100, **fields)


def test_rates_are_medians_over_what_finished_cells_took():
    rows = [
        row(
            sample_id=f"{number}-{sample}",
            adapter_id=str(number),
            seconds={"fit": 100.0 * number, "sample": 4.0, "score": 0.5},
        )
        for number in (1, 2, 9)
        for sample in (0, 1)
        for _ in ("two", "metrics")
    ]
    rates = Rates.of(rows)
    assert rates == Rates(training=1.0, sampling=0.2, scoring=1.0, is_measured=True)
    cfg = replace(load(["references=1"]), train_steps=50, batch_size=2, seeds=3, steps=5, guidance_scale=2.0)
    cfg = replace(cfg, edits=["a", "b"])
    assert cell_cost(cfg, "r", rates, make_reader(cfg.data)) == pytest.approx(
        50 * 2 * 1.0 + 6 * (5 * 2 * 0.2 + 1.0)
    )
    assert cell_cost(replace(cfg, tau=1000.0), "r", rates, make_reader(cfg.data)) == pytest.approx(
        6 * (5 * 2 * 0.2 + 1.0)
    )
    assert not Rates.of([]).is_measured
