"""Scores of samples: one file a metric, a pure function under a thin class that says what it needs."""
