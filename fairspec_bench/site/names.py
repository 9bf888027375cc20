"""File names that are safe anywhere and unique on a site."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable


def slugify(name: str) -> str:
    """`name` in a-z, 0-9 and single hyphens, at most 60 characters; `run` if nothing is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:60].strip("-") or "run"


def unique_slugs(names: Iterable[str]) -> list[str]:
    """A slug for each name, in their order; the second of one slug gets a number."""
    taken: set[str] = set()
    found = []
    for name in names:
        slug, number = slugify(name), 2
        candidate = slug
        while candidate in taken:
            candidate, number = f"{slug}-{number}", number + 1
        taken.add(candidate)
        found.append(candidate)
    return found
