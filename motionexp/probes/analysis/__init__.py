"""What a probe's rows say: when each attribute is set, the boundary, verdicts. No torch."""
