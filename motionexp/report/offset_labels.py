"""Where labels of crowded points go: beside their points, off each other and all points, inside the panel.

The same points give the same places: each label in turn takes the cheapest place on fixed rings around its
point, and all are gone through a few times. All lengths are printer's points.
"""

import numpy as np

RINGS = (9, 13, 18, 24, 31, 39)
"""Distances of a label from its point."""
ANGLES = np.deg2rad(np.arange(0, 360, 15) + 45)
"""Of places that are as good the first is taken: above, to the right."""
PASSES = 6
LABEL = np.array([10.0, 8.5])
"""Width and height of a label's box: two digits of 7 points."""
MARKER = 5.0


def offsets(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(N, 2) how far each label's centre is from its point.

    Args:
        points: (N, 2), from the panel's lower left corner.
        size: (2,) the panel's width and height.
    """
    rings = np.array([[ring * np.cos(angle), ring * np.sin(angle)] for ring in RINGS for angle in ANGLES])
    chosen = np.full(points.shape, np.nan)
    for _ in range(PASSES):
        for own in range(len(points)):
            others = np.arange(len(points)) != own
            placed = others & ~np.isnan(chosen[:, 0])
            cost = _cost(points[own], rings, points[others], points[placed], chosen[placed], size)
            chosen[own] = rings[np.argmin(cost)]
    return chosen


def _cost(
    point: np.ndarray,
    rings: np.ndarray,
    others: np.ndarray,
    placed: np.ndarray,
    placed_offsets: np.ndarray,
    size: np.ndarray,
) -> np.ndarray:
    """(K,) what is wrong with each place; `others` are all other points, `placed` those that have a label."""
    at, labels = point + rings, placed + placed_offsets
    lines = at[:, None]
    outside = np.any((at < LABEL / 2) | (at > size - LABEL / 2), axis=1)
    on_labels = np.all(np.abs(lines - labels) < LABEL, axis=2).sum(axis=1)
    on_points = np.all(np.abs(lines - np.vstack([others, point])) < (LABEL + MARKER) / 2, axis=2).sum(axis=1)
    over_labels = (_distance(labels, point, lines) < LABEL[1] / 2).sum(axis=1)
    under_lines = (_distance(lines, placed, labels) < LABEL[1] / 2).sum(axis=1)
    crossings = _crosses(point, lines, placed, labels).sum(axis=1)
    over_points = (_distance(others, point, lines) < MARKER / 2).sum(axis=1)
    bad = 200 * outside + 100 * on_labels + 50 * on_points + 30 * (over_labels + under_lines)
    cost: np.ndarray = bad + 20 * crossings + 8 * over_points + 0.5 * np.hypot(*rings.T)
    return cost


def _crosses(
    start: np.ndarray, end: np.ndarray, other_start: np.ndarray, other_end: np.ndarray
) -> np.ndarray:
    """Whether the line from `start` to `end` crosses the other, all (..., 2)."""
    apart = _side(start, end, other_start) * _side(start, end, other_end) < 0
    crosses: np.ndarray = apart & (
        _side(other_start, other_end, start) * _side(other_start, other_end, end) < 0
    )
    return crosses


def _side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
    """On which side of a line a point is, by its sign."""
    along, to = end - start, point - start
    side: np.ndarray = along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]
    return side


def _distance(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of a point from the line between `start` and `end`, all (..., 2)."""
    along, to = end - start, point - start
    share = np.clip((to * along).sum(axis=-1) / (along * along).sum(axis=-1), 0, 1)
    distance: np.ndarray = np.linalg.norm(to - share[..., None] * along, axis=-1)
    return distance
