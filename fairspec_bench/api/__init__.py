"""The public functions: what the commands and a notebook call."""
