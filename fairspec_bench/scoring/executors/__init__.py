"""Who makes the lines of a run: this process, a Ray cluster, or a serving engine."""
