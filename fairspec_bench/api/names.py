"""Names of models as folders."""

from __future__ import annotations

import re
from pathlib import Path


def slug(name: str) -> str:
    """The last part of a model's name, fit for a folder's."""
    return re.sub(r"[^\w.-]+", "-", Path(name).name).strip("-.")
