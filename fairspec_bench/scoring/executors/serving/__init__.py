"""Runs on a serving engine instead of our own loop: the same suites and lines, as far as the engine reports them."""
