"""How many positions a model is made for, by its configuration."""

from __future__ import annotations

from typing import Any

NOT_SCALED = ("default", "longrope", "llama3", "dynamic")
"""Ropes whose positions are counted already; or `dynamic`, which turns all otherwise once a text passes them."""


def max_positions(config: Any) -> int | None:
    """The most positions of a text model's configuration, those that a scaled rope adds included; `None`: no limit.

    As vLLM derives it: checkpoints with YaRN state what they were trained on and a factor.
    """
    limit: int | None = getattr(config, "max_position_embeddings", None)
    if limit is None or "gemma3" in config.model_type:
        return limit
    rope = getattr(config, "rope_parameters", None) or {}
    ropes = rope.values() if all(isinstance(each, dict) for each in rope.values()) else [rope]
    scaled = [_scaled(each, limit) for each in ropes if each.get("rope_type", "default") not in NOT_SCALED]
    return min(scaled, default=limit)


def _scaled(rope: dict[str, Any], limit: int) -> int:
    base = rope.get("original_max_position_embeddings") if rope["rope_type"] == "yarn" else None
    return int((base or limit) * (rope.get("factor") or 1))


def rope_switch(config: Any) -> int | None:
    """The position from which a model turns its rotations otherwise, if it does."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        return int(rope["original_max_position_embeddings"])
    return None
