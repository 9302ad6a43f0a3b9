import numpy as np

from motionexp.data.shapes.render import render
from motionexp.metrics.foreground import coverage, foreground
from motionexp.metrics.nuisances import bare_ground
from tests.metrics.conftest import make_scene


def test_the_object_s_pixels_are_the_truth_s():
    scene = make_scene("left", 3)
    seen, truth = foreground(render(scene)), scene.truth(16)
    assert foreground(bare_ground(scene, 16)).pieces == [None]
    painted = np.abs(render(scene).astype(int) - bare_ground(scene, 16)).max(-1) > 60
    for index, piece in enumerate(seen.pieces):
        assert (piece & painted[index]).sum() / (piece | painted[index]).sum() > 0.9
        xs = np.average(np.arange(64) + 0.5, weights=coverage(seen.distance[index], piece).sum(0))
        assert abs(xs - truth.position[index, 0]) < 4
