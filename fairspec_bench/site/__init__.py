"""The board as static pages: run folders and checked submissions in, HTML out."""

from fairspec_bench.site.board import Entry
from fairspec_bench.site.build import build_site

__all__ = ["Entry", "build_site"]
