"""A probe's grid in timesteps: blocks, their edges, and all pairs of edges. Imports no torch."""

from itertools import combinations

# A probe's grid in timesteps: blocks and their edges, and all 55 pairs of edges (tau_start, tau_end).
BLOCK = 100


EDGES = tuple(range(0, 1001, BLOCK))


Pair = tuple[int, int]


PAIRS: tuple[Pair, ...] = tuple(combinations(reversed(EDGES), 2))
