"""What stands on disk, typed: prompts, lines, run configuration, report, submission, and the files they stand in.

The bottom layer: no models, no text processing, no statistics.
"""
