"""The grid of a probe in timesteps: blocks, their edges, and all 55 pairs of edges. Imports no torch."""

from itertools import combinations

BLOCK = 100
EDGES = tuple(range(0, 1001, BLOCK))
Pair = tuple[int, int]
"""(tau_start, tau_end), both edges, tau_end below tau_start."""
PAIRS: tuple[Pair, ...] = tuple(combinations(reversed(EDGES), 2))
