"""Trained weights and training state on disk; a state is whole or absent after a kill."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from fairspec_bench.schemas.base import FairspecError


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None, folder: Path) -> None:
    """Write weights, and the tokenizer if there is one, as Transformers loads them, without its progress bar."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training's state, atomically. Raises `FairspecError` where the disk refuses."""
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dict(state), part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise FairspecError(f"{path}: cannot be written ({error}). Free space or choose another --out.") from error


def load_checkpoint(path: Path, restore: Callable[[dict[str, Any]], None], device: torch.device | str = "cpu") -> None:
    """Call `restore` with the state at `path`, if there is one. Raises `FairspecError` for one that does not fit."""
    if not path.exists():
        return
    try:
        restore(torch.load(path, weights_only=True, map_location=device))
    except Exception as error:  # a damaged file fails in many ways
        raise FairspecError(f"{path}: damaged ({type(error).__name__}). Delete it to begin anew.") from error
