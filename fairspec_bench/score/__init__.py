"""A run: prompts in, lines of records out (`reference`, `replay`, `race`; `folder` and `run` keep them on disk)."""
