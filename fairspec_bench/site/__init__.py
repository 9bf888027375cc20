"""The board as static pages: run folders in, HTML out."""

from fairspec_bench.site.build import build_site

__all__ = ["build_site"]
