"""The benchmark's 55 runs: they share nothing, and come out as the tree's."""

import pytest
import torch

from motionexp.probes.interventions import partial_guidance, tampering
from motionexp.probes.timesteps import PAIRS
from motionexp.probes.tree import cost, cost_one_by_one, run_tree
from motionexp.scripts import bench_probes

PROBES = {"tampering": tampering("a cat", "a dog", 3.0), "partial_guidance": partial_guidance("a dog", 3.0)}


@pytest.mark.parametrize("probe", PROBES)
def test_runs_apart_share_nothing_and_ten_steps_stand_for_fifty(probe):
    pairs, every = [PROBES[probe][pair] for pair in PAIRS], PROBES[probe].values()
    apart = cost(bench_probes.apart(pairs), [1] * 10)
    assert apart == cost_one_by_one(pairs, [1] * 10)
    ratio = cost_one_by_one(pairs, [5] * 10).evaluations / cost(every, [5] * 10).evaluations
    assert apart.evaluations / cost(every, [1] * 10).evaluations == pytest.approx(ratio)


def test_runs_apart_are_the_trees(backbone, starts):
    trajectories = [PROBES["tampering"][pair] for pair in ((700, 0), (700, 300), (200, 100))]

    def embed(caption):
        return backbone.embed([caption.rpartition(bench_probes.NUMBERED)[2]])

    tree, apart = (
        run_tree(backbone, runs, starts, 10, embed=embed, negative=backbone.embed([""]), rows=16)
        for runs in (trajectories, bench_probes.apart(trajectories))
    )
    torch.testing.assert_close(torch.stack(apart), torch.stack(tree), rtol=1e-5, atol=1e-5)


def test_a_probe_is_timed_both_ways(backbone):
    trajectories = {pair: PROBES["partial_guidance"][pair] for pair in ((300, 100), (300, 0), (100, 0))}
    times = bench_probes.tree_times(backbone, "partial_guidance", trajectories, "a cat")
    speedups = (f"tree_speedup_{how}" for how in ("batched", "one_by_one", "inverting_each"))
    metrics = ["tree_evaluations_ratio", *speedups]
    assert [entry[:2] for entry in times] == [(metric, "partial_guidance") for metric in metrics]
    # 300 to 100 guided and 0 not, 300 to 0 guided, 100 to 0 guided; the tree has the first two blocks once.
    assert times[0][2] == pytest.approx((5 + 6 + 2) / (5 + 2 + 2))
