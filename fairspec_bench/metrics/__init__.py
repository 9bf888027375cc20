"""What the lines of a run mean: every figure of docs/METRICS.md with its interval. numpy on lines, no torch."""
