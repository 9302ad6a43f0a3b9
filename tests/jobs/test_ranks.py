"""Two ranks on the CPU do what one process does with twice the draws."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from motionexp.config.schema import TrainerConfig
from motionexp.errors import InputError, Stopped
from motionexp.jobs.ranks import RankLost, on_ranks
from motionexp.jobs.run import run
from tests.support import rank_ends, rank_runs
from tests.support.rank_runs import TRAINING, examples_of, in_double, loaded, sampled, stacked, trained
from tests.support.tiny_jobs import job_settings
from tests.support.tiny_models import FRAMES, SIZE

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


def test_a_signal_on_one_rank_stops_all_after_the_same_step_and_all_resume(of_two):
    resumed, whole = of_two[1]["resumed"], of_two[1]["single"]
    assert (resumed["stopped"], resumed["resumed_from"]) == ("SIGTERM", 3)
    assert resumed["losses"] == whole["losses"]
    assert difference(resumed, whole) == 0


def test_samples_are_those_of_one_process_bit_for_bit(of_two, backbone):
    expected = sampled(backbone)
    assert len(expected) == 7
    assert all(map(np.array_equal, of_two[1]["sampled"], expected))


def files_of(folder):
    return {str(path.relative_to(folder)): path for path in Path(folder).rglob("*") if path.is_file()}


def test_a_job_of_two_ranks_leaves_what_a_job_of_one_with_two_draws_leaves(of_two, job, tmp_path):
    cfg, _ = of_two
    assert run(cfg)  # finished: it starts no ranks
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
