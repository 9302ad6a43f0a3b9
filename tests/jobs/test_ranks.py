"""Two ranks on the CPU do what one process does with twice the draws."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file

from motionexp import jobs
from motionexp.config.schema import TrainerConfig
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError, Stopped
from motionexp.jobs.cell import Cell
from motionexp.jobs.failures import CellsFailed, Failure, Failures
from motionexp.jobs.inputs import gpu_problem, plan_job
from motionexp.jobs.memory_plan import memory_plan
from motionexp.jobs.ranks import LOST, RankLost, on_ranks
from motionexp.jobs.run import run
from motionexp.jobs.sweep_table import JobRows
from motionexp.methods.adapters import save_adapter
from motionexp.methods.checkpoints import SealedFile
from motionexp.methods.full_rank import FullRank
from tests.support import rank_ends, rank_runs
from tests.support.rank_runs import TRAINING, examples_of, in_double, loaded, sampled, stacked, trained
from tests.support.tiny_jobs import job_settings
from tests.support.tiny_models import FRAMES, SIZE
from tests.support.training_runs import RECIPE

TWO = TrainerConfig(devices=2)
JOB = {"edits": ["a red square", "a blue square", "a green square"], "base_model": True}


@pytest.fixture(scope="module")
def job(weights):
    target = "motionexp.backbones.latte.LatteBackbone"
    return partial(job_settings, target, weights, (FRAMES, SIZE, SIZE), **JOB)


@pytest.fixture(scope="module")
def of_two(job, tmp_path_factory):
    """The settings and the results of two ranks, started once for all tests."""
    cfg = job(output=str(tmp_path_factory.mktemp("ranks")), trainer=TWO)
    results, error = on_ranks(cfg, rank_runs.everything)
    if error is not None:
        raise error
    return cfg, results


@pytest.fixture(scope="module")
def backbone(weights):
    backbone = loaded(weights)
    backbone.examples = examples_of(backbone)
    return backbone


def difference(one, two):
    assert one["tensors"].keys() == two["tensors"].keys()
    tensors = max((one["tensors"][name] - two["tensors"][name]).abs().max() for name in one["tensors"])
    return max(float(tensors), float(np.abs(np.subtract(one["losses"], two["losses"])).max()))


def test_in_float64_losses_and_adapter_are_those_of_one_process(of_two, weights):
    one = in_double(weights, replace(TRAINING, batch_size=2))
    two = of_two[1]["double"]
    assert len(two["losses"]) == 10
    assert next(iter(two["tensors"].values())).dtype == torch.float64
    assert difference(one, two) < 1e-6
    assert difference(in_double(weights, TRAINING), two) > 1e-3  # with one draw a step


@pytest.mark.parametrize("spread", [{"batch_size": 4}, {"batch_size": 2, "accumulate": 2}])
def test_accumulated_batches_are_one_large_batch(spread, of_two, weights):
    one = in_double(weights, replace(TRAINING, steps=3, **spread))
    assert difference(one, of_two[1]["accumulated"]) < 1e-6


def test_in_fp32_the_first_gradients_agree(of_two, backbone):
    one = trained(backbone, backbone.examples, replace(TRAINING, batch_size=2))
    for expected, gradient in zip(one["gradients"], of_two[1]["single"]["gradients"], strict=True):
        assert (gradient - expected).norm() <= 1e-6 * expected.norm()


def test_adapters_that_are_trained_together_keep_their_draws(of_two, backbone):
    one = stacked(backbone, backbone.examples, replace(TRAINING, batch_size=4, steps=3))
    assert difference(one, of_two[1]["stack"]) < 1e-5


@pytest.mark.parametrize("is_sharded", [False, True])
def test_a_signal_on_one_rank_stops_all_after_the_same_step_and_all_resume(is_sharded, of_two):
    results = of_two[1]
    whole = results["sharded" if is_sharded else "single"]
    resumed = (whole if is_sharded else results)["resumed"]
    assert (resumed["stopped"], resumed["resumed_from"]) == ("SIGTERM", 3)
    assert resumed["losses"] == whole["losses"]
    assert difference(resumed, whole) == 0


@pytest.mark.parametrize("folder", ["stopped", "of parts/stopped"])
def test_one_process_goes_on_with_what_two_have_begun(folder, of_two, backbone):
    cfg, results = of_two
    settings = replace(TRAINING, batch_size=2)
    resumed = trained(backbone, backbone.examples, settings, folder=Path(cfg.output) / folder)
    assert resumed["resumed_from"] == 3
    assert resumed["losses"][:3] == results["single"]["losses"][:3]
    assert difference(resumed, results["single"]) < 1e-4


def test_a_checkpoint_beside_a_sharded_network_has_the_form_of_any_other(of_two):
    folder = Path(of_two[0].output)
    files = (folder / name / "checkpoint.ckpt" for name in ("resumed", "of parts/resumed"))
    whole, sharded = map(SealedFile().load_checkpoint, files)
    assert sharded.keys() == whole.keys()
    assert sharded["state_dict"].keys() == whole["state_dict"].keys()
    (one,), (other,) = whole["optimizer_states"], sharded["optimizer_states"]
    assert other["param_groups"] == one["param_groups"]
    assert other["state"].keys() == one["state"].keys()


def test_samples_are_those_of_one_process_bit_for_bit(of_two, backbone):
    expected = sampled(backbone)
    assert len(expected) == 5
    assert all(map(np.array_equal, of_two[1]["sampled"], expected))
    assert all(map(np.array_equal, of_two[1]["sharded"]["sampled"], expected))


def test_a_sharded_network_trains_the_same_adapter(of_two, backbone, job, tmp_path):
    sharded, whole = of_two[1]["sharded"], of_two[1]["single"]
    assert difference(sharded, whole) < 1e-6
    one = trained(backbone, backbone.examples, replace(TRAINING, batch_size=2))
    assert difference(one, sharded) < 1e-4  # Adam divides by gradients that are nearly 0 in fp32
    assert sharded["held"] == sum(weight.nbytes for weight in backbone.network.parameters()) / 2


def test_a_sharded_network_is_trained_by_lightnings_strategy_on_the_networks_mesh(of_two):
    sharded = of_two[1]["sharded"]
    assert issubclass(sharded["strategy"], ModelParallelStrategy)
    assert sharded["is_mesh_shared"]


def test_the_text_encoder_is_freed_before_the_network_is_sharded(of_two):
    """It is loaded on rank 0, where it embeds all captions; `rank_runs` refuses it on other ranks."""
    shardings = of_two[1]["shardings"]
    assert shardings  # the network of the job was sharded
    assert all(loaded == 1 and alive == 0 for loaded, alive in shardings)


def test_a_sharded_job_leaves_the_adapter_of_whole_networks(of_two):
    cfg, _ = of_two
    (whole,) = (Path(cfg.output) / "squares").rglob("adapter.safetensors")
    (sharded,) = (Path(cfg.output) / "sharded" / "squares").rglob("adapter.safetensors")
    assert whole.parents[1].name == sharded.parents[1].name
    assert difference_of_files(whole, sharded) < 1e-6


def test_a_stored_adapter_of_whole_weights_is_refused_for_a_sharded_network(job, weights, tmp_path):
    backbone = loaded(weights)
    save_adapter(tmp_path, backbone, FullRank(backbone, Window(700)), RECIPE)
    cfg = job(output=str(tmp_path), adapter=str(tmp_path), tau=None, trainer=TWO)
    assert plan_job(cfg).method == "full_rank"
    with pytest.raises(InputError, match=r"trainer.strategy=fsdp: adapter=.* full_rank"):
        plan_job(replace(cfg, trainer=replace(TWO, strategy="fsdp")))


def test_more_gpus_than_torch_sees_are_named(job, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    cfg = job(output=str(tmp_path), device="auto", trainer=TrainerConfig(devices=4))
    assert "this machine has 3 GPUs; at most 3" in gpu_problem(cfg, torch.device("cuda"))
    assert "no GPUs" in gpu_problem(cfg, torch.device("cpu"))
    assert gpu_problem(replace(cfg, device="cpu"), torch.device("cpu")) == ""
    assert gpu_problem(replace(cfg, trainer=TrainerConfig(devices=3)), torch.device("cuda")) == ""


def test_the_memory_plan_is_of_one_rank(job, tmp_path, backbone):
    def phases(strategy, devices=2):
        trainer = TrainerConfig(devices=devices, strategy=strategy)
        return {
            phase.name: phase
            for phase in memory_plan(plan_job(job(output=str(tmp_path), trainer=trainer, batch_size=2)))
        }

    weights = sum(weight.nbytes for weight in backbone.network.parameters())
    buffers = sum(buffer.nbytes for buffer in backbone.network.buffers())
    for strategy, part in (("ddp", 1), ("fsdp", 2)):
        training = phases(strategy)["training"]
        (network,) = (size for name, size in training.weights.items() if name.startswith("network"))
        assert network == weights / part + buffers
        assert (training.ranks, phases(strategy)["captions"].ranks) == (2, 1)
    # The draws of one rank count, and what is gathered to compute.
    alone = phases("auto", devices=1)["training"].computing
    assert phases("ddp")["training"].computing == alone < phases("fsdp")["training"].computing


def difference_of_files(*files):
    one, two = map(load_file, files)
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def files_of(folder):
    return {str(path.relative_to(folder)): path for path in Path(folder).rglob("*") if path.is_file()}


def test_a_job_of_two_ranks_leaves_what_a_job_of_one_with_two_draws_leaves(of_two, job, tmp_path):
    cfg, _ = of_two
    rows = run(cfg)  # finished: it starts no ranks
    assert {row.settings["batch_size"] for row in rows} == {2}
    assert all(JobRows.of(cfg).has(row) for row in rows)  # the table of a sweep finds them
    assert run(job(output=str(tmp_path), batch_size=2))
    two, one = (
        {name for name in files_of(Path(output) / "squares") if "hparams" not in name}
        for output in (cfg.output, tmp_path)
    )
    assert two == one
    apart = {}
    for name in sorted(name for name in one if name.endswith(".npz")):
        samples = [np.load(Path(output) / "squares" / name)["frames"] for output in (cfg.output, tmp_path)]
        has_adapter = (tmp_path / "squares" / name).parents[1] / "adapter"
        apart.setdefault(has_adapter.is_dir(), []).append(np.abs(np.subtract(*samples, dtype=int)).max())
    # Adapters differ in their last bits, the base model in none.
    assert apart[False] == [0, 0, 0]
    assert len(apart[True]) == 3
    assert max(apart[True]) <= 1


def test_after_a_failed_cell_new_ranks_take_the_other_cells(job, tmp_path, monkeypatch):
    cells = [Cell(tmp_path / name) for name in "ab"]
    for cell in cells:
        cell.folder.mkdir()
    calls = []

    def on_ranks(cfg, work, failed):
        calls.append({path.name for path in failed})
        failures = Failures(3, failed)
        left = [cell.folder for cell in cells if cell.folder not in failed][:1]
        for folder in left:
            failures.by_cell[folder] = Failure(str(folder), f"RankLost: {LOST}")
        return ([], [], failures), RankLost("rank 1 was ended by SIGKILL") if left else None

    monkeypatch.setattr(jobs.run, "on_ranks", on_ranks)
    cfg = job(output=str(tmp_path / "out"), trainer=TWO)
    with pytest.raises(CellsFailed, match="2 of 3") as caught:
        run(cfg)
    assert calls == [set(), {"a"}, {"a", "b"}]
    # Rank 0 has only seen that another one was gone.
    assert {failure.error for failure in caught.value.failures} == {"rank 1 was ended by SIGKILL"}
    assert cells[0].status()["error"] == "rank 1 was ended by SIGKILL"


@pytest.mark.parametrize("error", [Stopped(15), InputError("wrong"), RankLost("gone")])
def test_what_is_no_cells_failure_ends_the_job(error, job, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.run, "on_ranks", lambda *_: (None, error))
    with pytest.raises(type(error)):
        run(job(output=str(tmp_path), trainer=TWO))


def test_rank_0_returns_for_all(job, tmp_path):
    assert on_ranks(job(output=str(tmp_path), trainer=TWO), rank_ends.number_of, "x") == ("0x", None)


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (rank_ends.refuse_on_rank_1, InputError, "rank 1 says no"),
        (rank_ends.killed_on_rank_1, RankLost, "rank 1 .*SIGKILL"),
        (rank_ends.terminated_on_rank_1, Stopped, "143"),
    ],
)
def test_the_end_of_one_rank_ends_all_with_its_message(work, error, message, job, tmp_path):
    result, first = on_ranks(job(output=str(tmp_path), trainer=TWO), work)
    assert (result, type(first)) == (None, error)
    assert re.search(message, str(first))
