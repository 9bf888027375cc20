"""Suites: prompts by language and the grading of answers. No models and no token ids."""
