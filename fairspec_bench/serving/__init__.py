"""Runs on an engine that serves, instead of our own loop: the same suites and records, as far as it shows its work."""
