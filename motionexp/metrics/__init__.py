"""Scores of samples: one file a metric, each a pure function under a thin `torchmetrics.Metric`."""
