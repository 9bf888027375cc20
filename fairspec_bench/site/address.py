"""Where the site and its code are found, as its builder says."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from fairspec_bench.site.labels import is_web_address
from fairspec_bench.site.publish import SiteError


@dataclass(frozen=True)
class Address:
    """`base_url` is the https address of the site's folder, `repository` that of its code; empty: not known.

    Raises `SiteError` for one that is not plain https.
    """

    base_url: str = ""
    repository: str = ""

    def __post_init__(self) -> None:
        for name, url in (("base_url", self.base_url), ("repository", self.repository)):
            if url and not is_web_address(url):
                raise SiteError(f"{name}: {url!r} is not a plain https address. Give one like https://host/path/.")
        if self.base_url:
            object.__setattr__(self, "base_url", f"{self.base_url.rstrip('/')}/")

    @property
    def root(self) -> str:
        """The path of the site's folder on its host, `/sub/`; empty where the address is not known."""
        return urlsplit(self.base_url).path if self.base_url else ""


NOWHERE = Address()
"""A site that knows neither address."""
