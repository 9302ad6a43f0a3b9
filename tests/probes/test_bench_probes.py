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
    pairs = [PROBES[probe][pair] for pair in PAIRS]
    together = cost(PROBES[probe].values(), [1] * 10)
    apart = cost(bench_probes.apart(pairs), [1] * 10)
    assert apart == cost_one_by_one(pairs, [1] * 10)
    at_fifty = (
        cost_one_by_one(pairs, [5] * 10).evaluations / cost(PROBES[probe].values(), [5] * 10).evaluations
    )
    assert apart.evaluations / together.evaluations == pytest.approx(at_fifty)


def test_runs_apart_are_the_trees(backbone, starts):
    trajectories = [PROBES["tampering"][pair] for pair in ((700, 0), (700, 300), (200, 100))]
    settings = {"negative": backbone.embed([""]), "memory": 2.0**30}
    tree = run_tree(
        backbone, trajectories, starts, 10, embed=lambda caption: backbone.embed([caption]), **settings
    )
    apart = run_tree(
        backbone,
        bench_probes.apart(trajectories),
        starts,
        10,
        embed=lambda caption: backbone.embed([caption.rpartition(bench_probes.NUMBERED)[2]]),
        **settings,
    )
    torch.testing.assert_close(torch.stack(apart), torch.stack(tree), rtol=1e-5, atol=1e-5)


def test_a_probe_is_timed_both_ways(backbone):
    trajectories = {pair: PROBES["partial_guidance"][pair] for pair in ((300, 100), (300, 0), (100, 0))}
    times = bench_probes.tree_times(backbone, "partial_guidance", trajectories, "a cat", 2.0**30)
    assert [entry[:2] for entry in times] == [
        (metric, "partial_guidance")
        for metric in (
            "tree_evaluations_ratio",
            "tree_speedup_batched",
            "tree_speedup_one_by_one",
            "tree_speedup_inverting_each",
        )
    ]
    # 300 to 100 guided and 0 not, 300 to 0 guided, 100 to 0 guided; the tree has the first two blocks once.
    assert times[0][2] == pytest.approx((5 + 6 + 2) / (5 + 2 + 2))
