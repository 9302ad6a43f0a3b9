"""Experiments' lines as sweeps of jobs, and experiments on real models: their jobs, cost, data and table."""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from motionexp.cli import main
from motionexp.config.compose import load
from motionexp.config.schema import JobConfig
from motionexp.errors import InputError
from motionexp.jobs.experiment import experiment_jobs, experiment_text
from motionexp.jobs.paper_table import cost_of
from motionexp.jobs.sweeps import check_training_versions, settings_of, sweeps_of
from motionexp.results.comparisons import Comparison
from motionexp.results.layout import Layout, selected_rows
from motionexp.results.layout_file import read_layout
from motionexp.results.rows import Row, append_rows
from motionexp.results.tables import Table, build
from tests.support.kept_results import job_row
from tests.support.made_suites import LENGTHS, make_davis, make_tgve

# Of a line of the table: what tells the job, and a column's key with its place.
COLUMNS = {
    "text_alignment": 100,
    "frame_consistency_consecutive": 200,
    "pick_score": 300,
    "flow_similarity": 400,
}


DISTANCES = ("cosine", "l2", "authors_code")
OF_VMC = "tau=0 projections=['q', 'k', 'v'] train_steps=400 learning_rate=0.0001 inverted_noise=1"


@pytest.fixture(scope="module")
def tgve(tmp_path_factory) -> Iterator[str]:
    """The benchmark with 32 frames of each video: a job counts the frames of all videos several times."""
    lengths = dict.fromkeys(LENGTHS, 32)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("motionexp.data.tgve.LENGTHS", lengths)
        yield str(make_tgve(tmp_path_factory.mktemp("tgve") / "data", lengths=lengths))


@pytest.fixture
def offline(monkeypatch, tmp_path) -> None:
    """Neither a network nor anything in the hub's cache; a job's plan, which loads weights, is a mistake."""

    monkeypatch.setattr(socket, "getaddrinfo", None)
    monkeypatch.setattr(socket.socket, "connect", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("motionexp.cli._run_hydra", None)


def jobs_of(name: str, model: str, tgve: str, output: Path, *more: str) -> tuple[Layout, list[JobConfig]]:
    overrides = [f"model={model}", "data=tgve", f"data.path={tgve}", "references=2", "seeds=2", *more]
    layout, _, jobs = experiment_jobs(name, [*overrides, f"output={output}"])
    return layout, jobs


def rows_of(cfg: JobConfig, number: int) -> list[Row]:
    """The rows of a job: its number and the column's, and around that by reference and seed, mean 0."""
    return [
        job_row(
            cfg,
            metric=metric,
            value=column + number + (0.5 if reference == "dav-0" else -0.5) + (0.1 if seed else -0.1),
            score_id=f"{cfg.model.name} {number} {metric} {reference} {kind} {seed}",
            suite="tgve",
            reference=reference,
            reference_hash=reference,
            strata={"source": "DAVIS_480p"},
            edit_kind=kind,
            seed=seed,
        )
        for metric, column in COLUMNS.items()
        for reference, kind, seed in product(("dav-0", "dav-1"), ("style", "object"), range(cfg.seeds))
    ]


def others_than(row: Row) -> list[Row]:
    """Rows that lie in the same folder and are of no job of the experiment."""
    changed = [{"settings": {**row.settings, "frames": 12}}, {"settings": {**row.settings, "rank": 2}},
               {"seed": 2}, {"reference": "dav-2"}, {"model": "show1"}, {"suite": "davis"},
               {"precision": "bf16"}, {"method": "tampering"}]  # fmt: skip
    return [replace(row, **change, value=9e9, score_id=f"other {n}") for n, change in enumerate(changed)]


def table_of(layout: Layout, jobs: list[JobConfig], output: Path) -> Table:
    rows = [row for number, cfg in enumerate(jobs) for row in rows_of(cfg, number)]
    append_rows(output / "rows.jsonl", [*rows, *others_than(rows[-1])])
    (table,) = build(Comparison(layout, selected_rows(layout, output)), *layout.tables)
    return table


@pytest.mark.parametrize(
    ("name", "model", "labels", "reported"),
    [
        ("tau", "latte", [f"tau={tau}" for tau in (1000, 750, 700, 650, 0)], "750, window"),
        (
            "full_rank",
            "modelscope",
            [
                f"tau={tau} train_steps={steps} method={method}"
                for method, steps in (("lora", 200), ("full_rank", 150))
                for tau in (600, 0)
            ],
            None,
        ),
        (
            "projections",
            "latte",
            ["projections=['v', 'o']", "projections=['q', 'k', 'v', 'o']"],
            "motion attention, v, o",
        ),
        (
            "vmc",
            "latte",
            [
                "tau=1000",
                *(
                    f"method=vmc {OF_VMC} method.residuals={residuals} method.distance={distance}"
                    for residuals, distances in (("noise", DISTANCES), ("frames", DISTANCES[:2]))
                    for distance in distances
                ),
                f"method=full_rank {OF_VMC}",
            ],
            "VMC, cosine, whole, 400",
        ),
    ],
)
def test_a_run_on_a_real_model_has_a_table_with_a_line_a_job(name, model, labels, reported, tgve, tmp_path):
    layout, jobs = jobs_of(name, model, tgve, tmp_path)
    table = table_of(layout, jobs, tmp_path)
    measured, *below = table.blocks
    assert measured.title == model
    assert [set(line.labels[0].split()) for line in measured.lines] == [
        set(label.split()) for label in labels
    ]
    # Two references x two kinds x two seeds; no column of ground truth.
    assert {line.n for line in measured.lines} == {"8 (2)"}
    assert table.columns == ["text alignment ↑", "consistency ↑", "pick score ↑", "flow ↑"]
    for number, line in enumerate(measured.lines):
        means = [cell.interval.mean for cell in line.cells]
        assert means == pytest.approx([column + number for column in COLUMNS.values()])
    lines = [line for block in below for line in block.lines]
    assert {line.source for line in lines} == ({"reported"} if reported else set())
    assert not reported or [reported] in [line.labels for line in lines]


def test_each_real_model_has_a_block_of_its_own(tgve, tmp_path):
    layout, jobs = jobs_of("tau", "latte,cogvideox_2b", tgve, tmp_path)
    table = table_of(layout, jobs, tmp_path)
    assert [block.title for block in table.blocks[:2]] == ["latte", "cogvideox_2b"]
    for block, taus in zip(table.blocks, ((1000, 750, 700, 650, 0), (1000, 950, 900, 850, 0)), strict=False):
        assert [line.labels for line in block.lines] == [[f"tau={tau}"] for tau in taus]
    assert [block.title.partition(": ")[0] for block in table.blocks[2:]] == ["Reported"] * 3


def test_edit_kinds_stay_apart_on_real_models(tgve, tmp_path):
    layout, jobs = jobs_of("edit-kinds", "latte", tgve, tmp_path)
    table = table_of(layout, jobs, tmp_path)
    titles = [block.title for block in table.blocks if not block.title.startswith("Reported")]
    assert titles == ["latte, style", "latte, object"]


def test_the_table_is_printed_after_the_run(tgve, tmp_path, monkeypatch, capsys):
    _, jobs = jobs_of("tau", "latte", tgve, tmp_path)
    rows = [row for number, cfg in enumerate(jobs) for row in rows_of(cfg, number)]
    monkeypatch.setattr("motionexp.cli._run_hydra", lambda _: append_rows(tmp_path / "rows.jsonl", rows))
    overrides = ["model=latte", "data=tgve", f"data.path={tgve}", "references=2", "seeds=2"]
    assert main(["experiment=tau", *overrides, f"output={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "tau=700" in shown
    assert "31.96" in shown


def test_a_dry_run_without_weights_counts_and_asks_nobody(tgve, tmp_path, offline, monkeypatch, capsys):
    overrides = ["model=latte", "data=tgve", f"data.path={tgve}", f"output={tmp_path}", "dry_run=true"]
    swept: list[list[str]] = []
    monkeypatch.setattr("motionexp.cli._run_hydra", swept.append)
    assert main(["experiment=tau", *overrides]) == 0
    printed = capsys.readouterr().out
    shown = " ".join(printed.split())
    # Four of five jobs train; 76 references x 4 edits x 4 seeds; two branches of 50 steps.
    counts = [f"{4 * 76 * 200:,}", f"{5 * 1216:,}", f"{5 * 1216 * 100:,}"]
    assert re.search(" .*".join(counts), shown)
    assert "`python run.py model=latte dry_run=true`" in printed
    assert not re.search(r"\bcores\b", shown)
    assert re.search("tau=0: 76 ", shown)
    # One plan of all jobs follows, and nothing is swept. 200 training steps and 16 x 50 guided sampling steps
    # of a cell take 70 and twice 34.4 TFLOP each, in fp32 as the line says.
    hours = (4 * 76 * 200 * 69.9 + 5 * 76 * 16 * 50 * 68.8) / (0.21 * 67) / 3600
    assert re.search(rf"in all 380 0 {4 * 76 * 200:,} {5 * 1216:,} {hours:,.1f} h ", shown)
    assert f"about {hours:,.1f} h of one NVIDIA H200, computed" in shown
    assert not swept


def test_adapters_that_an_earlier_job_keeps_cost_no_training(tgve, tmp_path):
    _, jobs = jobs_of("steps", "latte", tgve, tmp_path, "guidance_scale=1")
    assert len(jobs) == 12
    samples = 12 * 2 * 4 * 2
    assert cost_of(jobs).startswith(
        f"{2 * 2 * 800:,} training steps, {samples} samples, {samples * 50:,} netw"
    )


def test_a_real_model_is_not_run_on_the_shapes(tmp_path, offline, capsys):
    for more in ([], ["dry_run=true"]):
        assert main(["experiment=tau", "model=latte", f"output={tmp_path}", *more]) == 2
        assert "model=latte" in capsys.readouterr().err


HEAD = "question: Which?\ncost: an hour\nrows: ''\nselect: {}\nsettings: {}\ntables: []\n"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes experiments/mine.yaml with these lines and what else is given."""
    monkeypatch.setattr("motionexp.jobs.experiment.EXPERIMENTS", tmp_path)

    def write(*sweep: str, paper: tuple[str, ...] = (), more: str = ""):
        path = tmp_path / "mine.yaml"
        path.write_text(HEAD + more + f"sweep: {list(sweep)}\npaper: {list(paper)}\n")
        return read_layout(path)

    return write


def test_a_model_on_the_command_line_takes_its_own_lines(written):
    small = "model=tiny_latte,tiny_unet3d tau=0,700"
    layout = written(small, "model=tiny_latte rank=8", paper=("model=latte,modelscope seeds=4",))
    assert sweeps_of(layout, "mine", []) == [
        ("sweep", 1, ["tau=0,700", "model=tiny_latte,tiny_unet3d"]),
        ("sweep", 2, ["rank=8", "model=tiny_latte"]),
    ]
    assert sweeps_of(layout, "mine", ["model=tiny_unet3d", "seeds=2"]) == [
        ("sweep", 1, ["tau=0,700", "model=tiny_unet3d", "seeds=2"])
    ]
    assert sweeps_of(layout, "mine", ["model=latte"]) == [("paper", 1, ["seeds=4", "model=latte"])]
    with pytest.raises(InputError, match=r"model=wan_14b; .* tiny_latte,"):
        sweeps_of(layout, "mine", ["model=tiny_latte,wan_14b"])


def test_what_the_command_line_gives_stands_in_place_of_the_lines(written):
    layout = written("model=tiny_latte tau=0,700 references=[a] rank=1,2")
    assert sweeps_of(layout, "mine", ["tau=500", "+references=[b]"]) == [
        ("sweep", 1, ["rank=1,2", "model=tiny_latte", "tau=500", "+references=[b]"])
    ]


@pytest.mark.parametrize("override", ["tau=500", "rank=8", "precision=bf16"])
def test_jobs_that_no_line_of_the_tables_would_show_are_refused(override, tmp_path):
    with pytest.raises(InputError, match=f"references with {override} "):
        experiment_jobs("references", [override, f"output={tmp_path}"])


def test_a_line_of_a_paper_names_its_models(written):
    layout = written("model=tiny_latte tau=0", paper=("seeds=4",))
    with pytest.raises(InputError, match="line 1 of `paper`"):
        sweeps_of(layout, "mine", ["model=latte"])


@pytest.mark.parametrize(
    ("second", "kind", "values"),
    [
        ("precision=bf16", "precision", "auto and bf16"),
        ("model.path=other", "weights_hash of tiny_latte", ""),
        ("references=2", "references of tiny_latte", ""),
        ("data.split=tuning", "references of tiny_latte", ""),
        ("seed=5", "seed", "0 and 5"),
        ("scoring.resize=0 scoring.clip=other", "metric_model", ""),
    ],
)
def test_jobs_that_cannot_be_compared_are_refused(
    second, kind, values, written, tmp_path, monkeypatch, model_folder
):
    model_folder.rename(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    lines = ("model=tiny_latte tau=0", f"model=tiny_latte tau=700 {second}")
    written(*lines)
    with pytest.raises(InputError, match=f" {kind}: {values}"):
        experiment_jobs("mine", [f"output={tmp_path}"])
    written(*lines, more=f"allow_mixed: [{kind.split()[0]}]\n")
    assert len(experiment_jobs("mine", [f"output={tmp_path}"])[2]) == 2


def test_a_plan_names_what_jobs_share_and_in_what_they_differ(written, tmp_path):
    layout = written("model=tiny_latte tau=0,700 references=2 seeds=3 edit_kinds=[style]")
    _, _, jobs = experiment_jobs("mine", [f"output={tmp_path}"])
    same, differences = settings_of(jobs)
    assert differences == [{"tau": "0"}, {"tau": "700"}]
    assert (same["model"], same["rank"], same["learning_rate"]) == ("tiny_latte", "4", "0.01")
    text = experiment_text("mine", layout, jobs)
    assert "1. tau=0: 2 cells, 1 edit, 3 seeds: 6 samples" in text
    assert text.endswith("2 jobs, 4 cells, 12 samples")


def paper_jobs(name: str, model: str, tgve: str, tmp_path):
    overrides = [f"model={model}", "data=tgve", f"data.path={tgve}", f"output={tmp_path}", "dry_run=true"]
    layout, _, jobs = experiment_jobs(name, overrides)
    assert {(cfg.references, cfg.model.name, cfg.dry_run) for cfg in jobs} == {("all", model, True)}
    return layout, jobs


@pytest.mark.parametrize("name", ["comparison", "edit-kinds"])
def test_the_papers_jobs_take_all_videos_of_davis_too(name, tmp_path):
    prompts = {"video": "bear", "caption": "a bear", "subject": "a cat", "scene": "a car"}
    path = make_davis(tmp_path / "DAVIS", [prompts | {"frame_range": [0, 24, 1]}])
    data = ["data=davis", f"data.path={path}", f"data.prompts={path / 'prompts.json'}"]
    overrides = ["model=latte,cogvideox_2b", *data, f"output={tmp_path}", "dry_run=true"]
    layout, _, jobs = experiment_jobs(name, overrides)
    assert {(cfg.references, cfg.model.name) for cfg in jobs} == {("all", "latte"), ("all", "cogvideox_2b")}
    assert "2 jobs, 2 cells" in experiment_text(name, layout, jobs)


def test_on_real_models_tau_is_the_second_papers_table_1(tgve, tmp_path):
    for model, taus in (
        ("latte", [1000, 750, 700, 650, 0]),
        ("modelscope", [1000, 750, 700, 650, 0]),
        ("cogvideox_2b", [1000, 950, 900, 850, 0]),
    ):
        layout, jobs = paper_jobs("tau", model, tgve, tmp_path)
        assert [cfg.tau for cfg in jobs] == taus
        assert {(cfg.seeds, cfg.rank, cfg.alpha, cfg.train_steps) for cfg in jobs} == {(4, 4, 4.0, 200)}
        assert {tuple(cfg.projections) for cfg in jobs} == {("v", "o")}
        assert f"5 jobs, 380 cells, {5 * 76 * 4 * 4:,} samples" in experiment_text("tau", layout, jobs)


def test_on_latte_rank_and_projections_are_the_second_papers_tables_4_and_5(tgve, tmp_path):
    _, jobs = paper_jobs("rank", "latte", tgve, tmp_path)
    methods = [(cfg.method["_target_"].rpartition(".")[2], cfg.method.get("rank")) for cfg in jobs]
    assert methods == [("LoRA", 4), ("LoRA", 8), ("LoRA", 16), ("FullRank", None)]
    assert [cfg.method["alpha"] for cfg in jobs[:3]] == [4.0, 8.0, 16.0]
    assert [cfg.attention for cfg in jobs] == ["motion"] * 3 + ["all"]
    assert {tuple(cfg.projections) for cfg in jobs} == {("q", "k", "v", "o")}
    _, jobs = paper_jobs("projections", "latte", tgve, tmp_path)
    assert [cfg.projections for cfg in jobs] == [["v", "o"], ["q", "k", "v", "o"]]
    assert {(cfg.tau, cfg.seeds, cfg.rank) for cfg in jobs} == {(700.0, 4, 4)}


def test_on_real_models_the_first_papers_experiments_have_its_settings(tgve, tmp_path):
    _, jobs = paper_jobs("full_rank", "modelscope", tgve, tmp_path)
    methods = [(cfg.method["_target_"].rpartition(".")[2], cfg.train_steps, cfg.tau) for cfg in jobs]
    assert methods == [("LoRA", 200, 600), ("LoRA", 200, 0), ("FullRank", 150, 600), ("FullRank", 150, 0)]
    assert {(cfg.learning_rate, cfg.seeds, cfg.steps, cfg.guidance_scale) for cfg in jobs} == {
        (3e-4, 2, 50, 9)
    }
    _, jobs = paper_jobs("edit-kinds", "modelscope", tgve, tmp_path)
    assert [(cfg.tau, cfg.seeds, cfg.train_steps) for cfg in jobs] == [(600.0, 2, 200)]


def stored_adapter(folder: Path, **record: object) -> str:
    """A folder with the record of a training, and no weights: none may be read."""
    folder.mkdir()
    about = {"suite": "shapes", "reference": "a", "steps": 1, "seconds": 1.0, **record}
    (folder / "fit.json").write_text(json.dumps(about))
    return str(folder)


def test_a_sweep_over_adapters_of_two_versions_of_the_training_is_refused(tmp_path):
    old, new = stored_adapter(tmp_path / "old"), stored_adapter(tmp_path / "new", version=2, seed=1)
    cfg = load(["model=tiny_latte"])
    stored = {name: replace(cfg, adapter=name, tau=None) for name in (old, new)}
    check_training_versions([stored[new], cfg, replace(cfg, tau=1000.0)])
    check_training_versions([stored[old], replace(cfg, tau=1000.0)])
    for jobs in ([*stored.values()], [stored[old], cfg]):
        with pytest.raises(InputError, match=rf"version 1: adapter={re.escape(old)}; version 2") as caught:
            check_training_versions(jobs)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "value", ["0", "1001", "[]", "[-1]", "[0,0]", "[a]", "1.5", "true", "[9223372036854775808]"]
)
def test_training_seeds_are_a_number_or_a_list_of_different_ones(value):
    with pytest.raises(InputError, match="training_seeds"):
        load([f"training_seeds={value}"])
