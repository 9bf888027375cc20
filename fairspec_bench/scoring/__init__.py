"""A run: prompts in, lines out. `reference`, `replay`, `race` and `sweep` make lines; `run_folder` keeps them."""
