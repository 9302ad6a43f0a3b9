"""One process: a backbone loaded once, and its cells one after the other: fit, sample, score, append rows."""
