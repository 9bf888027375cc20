"""Pictures of pages for people to look at: `python tests/browser/shots.py SITE OUT [PAGE…]`.

Every page named, or one of each kind, light and dark, 360 and 1280 pixels wide, whole length. Judges nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from browsing import NARROW, SCHEMES, WIDE, NoBrowser, chromium, kinds, visit


def main() -> int:
    parser = argparse.ArgumentParser(description="Take pictures of pages of a site.")
    parser.add_argument("site", type=Path, help="folder of the site")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("pages", nargs="*", help="paths in the site, '#fragment' allowed")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        with chromium() as browser:
            for scheme in SCHEMES:
                for width in (NARROW, WIDE):
                    with visit(browser, asked.site, scheme=scheme, width=width) as opened:
                        for path in asked.pages or kinds(asked.site):
                            name, _, fragment = path.partition("#")
                            page = opened.open(name, fragment)
                            stem = name.removesuffix(".html").replace("/", "-")
                            picture = asked.out / f"{stem}-{scheme}-{width}.png"
                            page.screenshot(path=picture, full_page=True)
                            print(picture)
                        for complaint in opened.complaints:
                            print(complaint, file=sys.stderr)
    except NoBrowser as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
